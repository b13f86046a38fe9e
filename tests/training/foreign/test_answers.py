"""What the user says is read as it is meant, or refused by name."""

import pytest

from classifier.manifest import MAX_LABELS
from training.errors import AnswerError
from training.foreign.answers import read_labels


@pytest.mark.timeout(20)  # each compared with all others, it would be minutes
def test_as_many_labels_are_read_as_a_bundle_may_have(tmp_path):
    """Twenty thousand names of species are no rarity."""
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(f"label {n}" for n in range(MAX_LABELS)))

    assert len(read_labels(str(path))) == MAX_LABELS


def test_a_label_that_stands_there_twice_is_named(tmp_path):
    """An id must be one label's; names alone may repeat, in a CSV file."""
    path = tmp_path / "labels.txt"
    path.write_text("crane\nheron\ncrane\n")

    with pytest.raises(AnswerError, match="'crane' twice; use a CSV file"):
        read_labels(str(path))
