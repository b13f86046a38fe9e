"""A bundle calls its labels as the data does, or a little nicer."""

from pathlib import Path

import pytest

from classifier.bundle import load_bundle
from classifier.manifest import Task
from tests.training.data.pictures import encoded
from training.bundling.labels import bundle_labels
from training.data import load_dataset


@pytest.mark.parametrize(
    ("task", "folders", "names"),
    [
        (Task.MULTICLASS, ("lion", "sea-cow", "sea-lion"), "lion, sea cow, sea lion"),
        (Task.FINE_GRAINED, ("apple-fuji", "apple-gala", "pear"), "fuji, gala, pear"),
        (
            Task.FINE_GRAINED,
            ("apple-gala", "apple-red", "pear-red"),
            "apple gala, apple red, pear red",
        ),
        (Task.MULTICLASS, ("cat", "sea-lion", "sea_lion"), "cat, sea-lion, sea_lion"),
        (Task.FINE_GRAINED, ("apple-", "apple-red", "pear"), "apple-, red, pear"),
        (
            Task.MULTICLASS,
            ("-", "-1", "1", "20-29", "_", "a_b", "covid-19", "trailing-", "été-né"),
            "-, -1, 1, 20-29, _, a b, covid-19, trailing-, été né",
        ),
    ],
    ids=[
        "no groups",
        "groups",
        "one name in two groups",
        "two spellings",
        "no name",
        "signs",
    ],
)
def test_no_two_labels_of_a_bundle_have_one_name(
    tmp_path: Path, task: Task, folders: tuple[str, ...], names: str
):
    """A hyphen between letters is a blank, and a group is not said twice; no more."""
    for folder in folders:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(encoded("red", 0))

    labels = bundle_labels(load_dataset(tmp_path), task)

    assert ", ".join(label.name for label in labels) == names
    assert [label.id for label in labels] == list(folders)
    assert {label.group is None for label in labels} == {task is Task.MULTICLASS}


def test_the_names_of_the_fruit_bundle_are_still_made_the_same(
    repository: Path, data_dir: Path
):
    """Ten kinds; peach and nectarine are groups of one, and keep their names."""
    committed = load_bundle(repository / "models" / "fruit").manifest.labels

    dataset = load_dataset(data_dir / "fruits-fine-grained.tar")

    assert bundle_labels(dataset, Task.FINE_GRAINED) == committed
