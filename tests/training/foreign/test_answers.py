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


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("a.txt", "crane\n\nheron\n", "line 2 is empty"),
        ("a.txt", "\n \n", "has no labels"),
        ("a.txt", "crane\n" + "x" * 2000, "line 2: id: String should have at most"),
        ("a.csv", "id,label\n1,crane\n", "columns are 'id', 'label'; `name` is needed"),
        ("a.csv", "", "columns are none; `name` is needed"),
        ("a.csv", "id,name\n1,crane\n2\n", "line 3 has no name"),
        ("a.csv", 'id,name\n1,"cra\nne"\n', r"line 3: 'cra\\nne' has a control char"),
        ("a.txt", "crane\fheron\n", r"line 1: 'crane\\x0cheron' has a control char"),
        ("a.json", '{"0": "crane", "2": "heron"}', 'no "1"; 2 labels are numbered'),
        ("a.json", '["crane", ["heron"]]', r"label 1 is \['heron'\]; \"name\" or"),
        ("a.json", '["crane", 7]', 'label 1 is 7; "name" or'),
        ("a.json", "7", "neither a list of names nor"),
        ("a.json", '["crane",', "line 1 column 10"),
    ],
)
def test_a_file_of_no_labels_is_told_where_and_what_is_read(tmp_path, file, text, why):
    """In the file's own terms."""
    (tmp_path / file).write_text(text)

    with pytest.raises(AnswerError, match=rf"{file}.* {why}"):
        read_labels(str(tmp_path / file))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.txt", "\n crane\nheron \n\n"),
        ("a.csv", "name,id\ncrane,\n\nheron,heron\n"),
        ("a.json", '["crane", ["heron", "heron"]]'),
        ("a.json", '{"1": "heron", "0": ["crane", "crane"]}'),
    ],
)
def test_each_kind_of_file_holds_the_same_labels(tmp_path, file, text):
    """What surrounds the names is nobody's label."""
    (tmp_path / file).write_text(text)

    labels = read_labels(str(tmp_path / file))

    assert [(label.id, label.name) for label in labels] == [
        ("crane", "crane"),
        ("heron", "heron"),
    ]


@pytest.mark.parametrize("file", ["a.txt", "a.csv"])
def test_only_the_end_of_a_line_ends_a_label(tmp_path, file):
    """A separator that a website has left in a name would move all labels behind it."""
    name = "crane\u2028Grus grus"
    text = f"name\n{name}\nheron\n" if file == "a.csv" else f"{name}\r\nheron\r\n"
    (tmp_path / file).write_bytes(text.encode())

    labels = read_labels(str(tmp_path / file))

    assert [label.name for label in labels] == [name, "heron"]
