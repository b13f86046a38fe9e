"""Labelled images are read as the bundle's task sees them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest

from classifier import Classifier
from classifier.bundle import load_bundle
from classifier.manifest import Label, Manifest, Task
from tests.synthetic import make_bundle, manifest_fields
from tests.training.data.pictures import encoded, write_tree
from training.bundling.next_version import DataSource, splits_for
from training.data.tree import SPLIT_FOLDERS
from training.errors import DataError
from training.evaluation.evaluate import align, evaluate, positions
from training.evaluation.intervals import clopper_pearson
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


def test_a_label_that_the_data_does_not_name_is_told_of(
    table: Path, caplog: pytest.LogCaptureFixture
):
    """No image has blue by it, but nobody may have looked."""
    ours = manifest(Task.MULTILABEL)
    dataset, part = open_labelled(table, ours, split="all")

    assert not align(part.labels, dataset, ours)[:, 2].any()
    assert "does not name blue; its images are taken to have none" in caplog.text


@pytest.mark.parametrize("folder", ["test", "val"])
def test_a_split_alone_is_enough_to_evaluate(tmp_path: Path, folder: str):
    """Nothing is learned from it: ImageNet's validation images come without others."""
    write_tree(tmp_path / folder, {"red": 2, "green": 1})
    ours = manifest(Task.MULTICLASS)

    dataset, part = open_labelled(tmp_path, ours, split=SPLIT_FOLDERS[folder])

    assert align(part.labels, dataset, ours).tolist() == [1, 0, 0]


def test_one_class_is_enough_to_evaluate(tmp_path: Path):
    """All photos of one kind: how many of them are known?"""
    write_tree(tmp_path, {"green": 3})
    ours = manifest(Task.MULTICLASS)

    dataset, part = open_labelled(tmp_path, ours, split="test")

    assert align(part.labels, dataset, ours).tolist() == [1, 1, 1]


def test_a_label_may_occur_in_test_alone_to_evaluate(tmp_path: Path):
    """What is in train is of no interest to a bundle that is trained already."""
    write_tree(tmp_path / "train", {"red": 1, "green": 1})
    write_tree(tmp_path / "test", {"blue": 1})
    ours = manifest(Task.MULTICLASS)

    dataset, part = open_labelled(tmp_path, ours, split="test")

    assert align(part.labels, dataset, ours).tolist() == [2]


@pytest.mark.parametrize("task", [Task.MULTICLASS, Task.MULTILABEL])
def test_a_table_of_one_split_and_one_label_is_enough_to_evaluate(
    tmp_path: Path, task: Task
):
    """As of folders, so of rows."""
    (tmp_path / "a.png").write_bytes(encoded("green", 1))
    path = tmp_path / "labels.csv"
    path.write_text("file,label,split\na.png,green,test\n")

    dataset, part = open_labelled(path, manifest(task), split="test")

    assert dataset.label_names == ("green",)
    assert len(part) == 1


@pytest.mark.parametrize("make", ["zip", "tar"])
def test_an_archive_of_a_split_alone_is_enough_to_evaluate(tmp_path: Path, make: str):
    """With a lone folder around it, as archives often have."""
    write_tree(tmp_path / "photos" / "colors" / "test", {"green": 2})
    packed = shutil.make_archive(str(tmp_path / "colors"), make, tmp_path / "photos")

    _, part = open_labelled(Path(packed), manifest(Task.MULTICLASS), split="test")

    assert (part.name, len(part)) == ("test", 2)


@pytest.mark.parametrize("split", ["all", "test"])
def test_images_without_splits_are_measured_as_all_of_them(tmp_path: Path, split: str):
    """Nobody has trained on them; only a trainer would call them train."""
    folder = write_tree(tmp_path / "photos", {"red": 3})

    _, part = open_labelled(folder, manifest(Task.MULTICLASS), split=split)

    assert (part.name, len(part)) == ("all", 3)


def test_a_test_split_that_is_not_there_is_not_made_of_the_others(tmp_path: Path):
    """What was held out to choose by is no test; the names of what there is help."""
    for folder in ("train", "val"):
        write_tree(tmp_path / folder, {"red": 2, "green": 2})

    with pytest.raises(DataError, match="no test split; it has train, validation, or"):
        open_labelled(tmp_path, manifest(Task.MULTICLASS), split="test")


@pytest.mark.parametrize("folder", ["test", "colors/test"])
def test_a_folder_without_images_cannot_be_evaluated(tmp_path: Path, folder: str):
    """Not a figure over nothing."""
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "notes.txt").write_text("x")

    with pytest.raises(DataError, match=r"no images|at least 1"):
        open_labelled(tmp_path, manifest(Task.MULTICLASS), split="test")


@pytest.mark.parametrize("label", ["red", "not red"])
def test_a_detector_is_measured_on_one_kind_of_images(tmp_path: Path, label: str):
    """Only positives or only negatives: what is undefined on them is left out."""
    detector = Classifier.load(make_bundle(tmp_path / "models", "red", Task.BINARY))
    folder = write_tree(tmp_path / "photos", {"red": 3})
    (folder / "red").rename(folder / label)

    found = evaluate(detector, *open_labelled(folder, detector.manifest, split="test"))

    assert found.metrics["accuracy"] == (1.0 if label == "red" else 0.0)
    assert np.isfinite(list(found.metrics.values())).all()


def test_scenes_that_are_known_widen_the_intervals_of_an_evaluation(tmp_path: Path):
    """Twenty shelves of two photos each are twenty trials, not forty."""
    colors = Classifier.load(make_bundle(tmp_path / "models"))
    folder = write_tree(tmp_path / "photos", {"red": 20, "green": 20})
    (folder / "green").rename(folder / "blue")
    dataset, alone = open_labelled(folder, colors.manifest, split="test")
    together = replace(alone, scenes=np.arange(40) // 2)

    low, high = evaluate(colors, dataset, together).intervals["accuracy"]

    exact = evaluate(colors, dataset, alone).intervals["accuracy"]
    assert exact == clopper_pearson(20, 40)
    assert low < exact[0] - 0.03
    assert high > exact[1] + 0.03


def test_the_labels_that_are_taken_for_no_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """A misspelt folder of positives would be negatives without a word."""
    ours = load_bundle(make_bundle(tmp_path / "models", "red", Task.BINARY)).manifest
    folder = write_tree(tmp_path / "photos", {"red": 2, "green": 1, "blue": 1})
    (folder / "blue").rename(folder / "reds")

    with caplog.at_level("INFO", "training"):
        _, part = open_labelled(folder, ours, split="all")
        open_labelled(folder, ours, split="all", positive=("red", "reds"))

    assert part.labels.tolist() == [0, 1, 1, 0]
    assert caplog.messages == [
        "of photos, taken for not-red: green, reds",
        "of photos, taken for not-red: green",
    ]


@pytest.mark.parametrize(
    ("rows", "others"),
    [
        ("file,labels\na.png,red|sky\nb.png,sky\nc.png,\n", "sky, 1 "),
        ("file,labels\na.png,red|sky\nb.png,sky\nc.png,sky\n", "sky"),
        ("file,red,sky\na.png,1,0\nb.png,0,1\nc.png,0,1\n", "sky"),
        ("file,red\na.png,1\nb.png,0\nc.png,0\n", "2 "),
        ("file,red,not-red\na.png,1,0\nb.png,0,1\nc.png,0,0\n", "not-red, 1 "),
    ],
)
def test_of_several_labels_one_that_means_yes_is_enough(
    tmp_path: Path, table: Path, caplog: pytest.LogCaptureFixture, rows: str, others
):
    """And none means no, of which the log counts how often."""
    bundle = make_bundle(tmp_path / "models", "red", Task.BINARY)
    table.write_text(rows)

    with caplog.at_level("INFO", "training.evaluation"):
        ours = load_bundle(bundle).manifest
        dataset, part = open_labelled(table, ours, split="all")

    assert align(part.labels, dataset, ours).tolist() == [True, False, False]
    bare = "image(s) without a label" if others[-1] == " " else ""
    assert caplog.messages == [f"of {tmp_path.name}, taken for not-red: {others}{bare}"]


def test_two_columns_of_one_label_are_both_counted(table: Path):
    """A label may be written by its id in one and by its name in the other."""
    fields = manifest_fields("colors", Task.MULTILABEL)
    fields["labels"][0]["name"] = "crimson"
    ours = Manifest.model_validate_json(json.dumps(fields))
    table.write_text("file,red,crimson\na.png,1,0\nb.png,0,1\nc.png,0,0\n")

    dataset, part = open_labelled(table, ours, split="all")

    assert align(part.labels, dataset, ours)[:, 0].tolist() == [True, True, False]


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

    assert positions([name], labels) == [1]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_label_is_known_however_its_accents_are_written(form: str):
    """The data set may come from macOS; a label that is the same comes first."""
    ids = ("the", *(normalize(each, "thé") for each in ("NFC", "NFD")))
    labels = [Label(id=each, name=each.upper(), group=None) for each in ids]
    name = normalize(form, "thé")

    assert positions([name], labels) == [ids.index(name)]
    assert positions([name, name.upper()], labels[:2]) == [1, 1]


def test_a_name_of_two_labels_is_refused():
    """Cranes lift, and cranes fly: right answers would count as wrong."""
    labels = [Label(id=f"n{k}", name="crane", group=None) for k in range(2)]

    with pytest.raises(DataError, match=r"name of 2 labels .* their ids: n0, n1"):
        positions(["crane"], labels)
    assert positions(["n1"], labels) == [1]


@pytest.mark.parametrize("name", ["n02123046 tabby", "n02123045s", "tabby n02123045"])
def test_another_word_is_no_wnid_of_a_label(name: str):
    """Only all of it, at the beginning, is the same synset."""
    assert positions([name], [Label(id=TABBY, name="tabby", group=None)]) == [None]


def test_labels_that_are_not_the_bundles_are_told_how_to_say_yes(tmp_path: Path):
    """Who asks has named no label, and must not read that one was wrong."""
    folder = write_tree(tmp_path / "pets", {"blue": 1, "green": 1})

    with pytest.raises(
        DataError,
        match=r"of pets are .*, not those of colors, .* \(--positive\)$",
    ):
        open_labelled(folder, manifest(Task.BINARY), split="all")
