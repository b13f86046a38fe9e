"""Labelled images are read as the bundle's task sees them."""

import json
from pathlib import Path

import pytest

from classifier.bundle import load_bundle
from classifier.manifest import Label, Manifest, Task
from tests.synthetic import manifest_fields
from tests.training.data.pictures import encoded, write_tree
from training.bundling.next_version import DataSource, splits_for
from training.errors import DataError
from training.evaluation.evaluate import align, position
from training.evaluation.labelled import open_labelled


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three images, the second of which has no label."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(encoded("red", 1))
    path = tmp_path / "labels.csv"
    path.write_text("file,label\na.png,red\nb.png,\nc.png,green\n")
    return path


def manifest(task: Task) -> Manifest:
    """That of a bundle which knows red, green and blue."""
    return Manifest.model_validate_json(json.dumps(manifest_fields("colors", task)))


def test_a_missing_label_is_named_by_line(table: Path):
    """To evaluate and to optimize, whose task is that of the bundle."""
    line = r"labels\.csv, line 3: 0 labels where exactly one"
    with pytest.raises(DataError, match=line):
        open_labelled(table, manifest(Task.MULTICLASS), split="all")
    with pytest.raises(DataError, match=line):
        splits_for(manifest(Task.MULTICLASS), DataSource(table))


def test_an_image_of_several_labels_may_have_none(table: Path):
    """Nothing is missing where the bundle gives each label a yes or no."""
    _, part = open_labelled(table, manifest(Task.MULTILABEL), split="all")

    assert part.labels.tolist() == [[0, 1], [0, 0], [1, 0]]


TENCH, TABBY = "n01440764 tench, Tinca tinca", "n02123045 tabby, tabby cat"


def test_the_imagenet_bundle_knows_the_labels_of_a_synset_mapping(
    tmp_path: Path, imagenet_bundle: Path
):
    """With the names that ImageNet gives them its labels are those of its wnids."""
    (tmp_path / "LOC_synset_mapping.txt").write_text(f"{TENCH}\n{TABBY}\n")
    for wnid, color in (("n01440764", "red"), ("n02123045", "blue")):
        folder = write_tree(tmp_path / "train", {color: 1})
        (folder / color).rename(folder / wnid)
    ours = load_bundle(imagenet_bundle).manifest

    dataset, part = open_labelled(tmp_path, ours, split="all")

    assert dataset.label_names == (TENCH, TABBY)
    assert align(part.labels, dataset, ours).tolist() == [0, 281]


@pytest.mark.parametrize("name", [TABBY, "n02123045", "n02123045 tabby"])
@pytest.mark.parametrize("known", [TABBY, "n02123045"])
def test_a_wnid_is_the_same_label_with_and_without_its_names(name: str, known: str):
    """A network may have been trained with the mapping and be measured without."""
    ids = (TENCH, known)
    labels = [Label(id=each, name=each.upper(), group=None) for each in ids]

    assert position(name, labels) == 1


@pytest.mark.parametrize("name", ["n02123046 tabby", "n02123045s", "tabby n02123045"])
def test_another_word_is_no_wnid_of_a_label(name: str):
    """Only all of it, at the beginning, is the same synset."""
    assert position(name, [Label(id=TABBY, name="tabby", group=None)]) is None
