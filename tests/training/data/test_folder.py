"""Class folders become labels; what is odd about them is said, with the path."""

import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest

from tests.training.data.pictures import encoded, write_tree
from training.data import load_dataset
from training.data.folder import label_groups
from training.errors import DataError


def test_folder_names_are_the_labels_in_sorted_order(tmp_path):
    """The order decides the class index, so it must not depend on the file system."""
    write_tree(tmp_path / "train", {"red": 2, "blue": 1, "green": 3})
    write_tree(tmp_path / "val", {"green": 1})
    write_tree(tmp_path / "test", {"red": 1})

    dataset = load_dataset(tmp_path)

    assert dataset.label_names == ("blue", "green", "red")
    assert dataset.train.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert dataset.parts["validation"].labels.tolist() == [1]
    assert dataset.parts["test"].labels.tolist() == [2]


def test_class_folders_without_splits_are_all_train(tmp_path):
    """The simplest thing that people have."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 2, "blue": 1}))

    assert list(dataset.parts) == ["train"]
    assert len(dataset.train) == 3


def test_a_data_set_that_is_named_by_a_dot_has_a_name(tmp_path, monkeypatch):
    """Else a card would say `(, test)`; it is the same for a CSV."""
    write_tree(tmp_path / "flowers", {"red": 2, "blue": 1})
    monkeypatch.chdir(tmp_path / "flowers")
    folders = load_dataset(Path())
    rows = "file,label\nred/0.png,red\nblue/0.png,blue\n"
    Path("labels.csv").write_text(rows, encoding="utf-8")

    assert (folders.name, load_dataset(Path()).name) == ("flowers", "flowers")


def test_a_label_may_be_called_like_a_split(tmp_path):
    """A train among buses and cars has its images in its own folder."""
    dataset = load_dataset(_of_labels(tmp_path, "bus", "car", "train"))

    assert dataset.label_names == ("bus", "car", "train")
    assert set(dataset.parts) == {"train"}


def test_images_of_splits_without_labels_are_not_taken_for_labels(tmp_path):
    """`train` and `test` alone, without class folders, are two splits."""
    with pytest.raises(DataError, match="outside of a class folder"):
        load_dataset(_of_labels(tmp_path, "train", "test"))


def _of_labels(root, *labels):
    """A folder with a picture for each of these."""
    for number, label in enumerate(labels):
        (root / label).mkdir()
        (root / label / "1.png").write_bytes(encoded("red", number))
    return root


def test_an_empty_class_folder_is_an_error_that_names_it(tmp_path):
    """Training without it would silently know one class less."""
    write_tree(tmp_path / "train", {"red": 1, "blue": 1})
    (tmp_path / "train" / "green").mkdir()

    with pytest.raises(DataError, match=r"train/green has no images"):
        load_dataset(tmp_path)


def test_a_label_that_train_lacks_is_an_error(tmp_path):
    """Nothing could learn it, and every accuracy would be wrong by it."""
    write_tree(tmp_path / "train", {"red": 1, "blue": 1})
    write_tree(tmp_path / "validation", {"green": 1})

    with pytest.raises(
        DataError, match="'green' occurs in validation and not in train"
    ):
        load_dataset(tmp_path)


def test_folders_whose_names_look_the_same_are_refused(tmp_path):
    """macOS writes accents otherwise: a validation from there would lack in train."""
    for split, form in (("train", "NFC"), ("val", "NFD")):
        write_tree(tmp_path / split, {"blue": 1, "red": 1})
        (tmp_path / split / "blue").rename(tmp_path / split / normalize(form, "café"))

    with pytest.raises(DataError, match=r"label 'caf\xe9' .* Unicode normalization"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("counts", [{}, {"red": 3}])
def test_fewer_than_two_labels_is_an_error(tmp_path, counts):
    """There is nothing to tell apart."""
    write_tree(tmp_path, counts)
    (tmp_path / "notes.txt").write_text("x")

    with pytest.raises(DataError):
        load_dataset(tmp_path)


def test_an_image_outside_of_a_class_folder_is_an_error(tmp_path):
    """It has no label."""
    write_tree(tmp_path / "train", {"red": 1, "blue": 1})
    (tmp_path / "train" / "lost.png").write_bytes(encoded("red", 1))

    with pytest.raises(DataError, match=r"lost\.png lies outside of a class folder"):
        load_dataset(tmp_path)


def test_splits_without_train_are_an_error(tmp_path):
    """The message lists what was found instead."""
    write_tree(tmp_path / "test", {"red": 1, "blue": 1})

    with pytest.raises(DataError, match=r"\['test'\] but no train folder"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("parent", ["", "train/"])
def test_files_of_another_format_alone_are_called_no_images(tmp_path, parent):
    """An iPhone's, say: what is there is named, and what could be."""
    for label in ("cat", "dog"):
        (tmp_path / parent / label).mkdir(parents=True)
        (tmp_path / parent / label / "0.heic").touch()

    with pytest.raises(DataError, match=r"no images, but .*0\.heic; .*\.jpg, "):
        load_dataset(tmp_path)


def test_a_label_is_no_longer_than_a_bundle_holds(tmp_path):
    """Said when the data is read, not after the training."""
    write_tree(tmp_path, {"red": 1})
    (tmp_path / "red").rename(tmp_path / ("r" * 201))

    with pytest.raises(DataError, match=r"'rrr.* has 201 characters; .* most 200"):
        load_dataset(tmp_path)


def test_files_that_are_no_images_are_remembered(tmp_path):
    """Dropped, but never silently."""
    folder = write_tree(tmp_path, {"red": 1, "blue": 1})
    (folder / "red" / "notes.txt").write_text("x")

    assert load_dataset(folder).ignored == ("red/notes.txt",)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JPG"])
def test_a_jpeg_may_be_called_by_any_of_its_names(tmp_path, suffix):
    """Windows saves the pictures of web pages as .jfif."""
    folder = write_tree(tmp_path, {"red": 1, "blue": 1})
    (folder / "red" / f"1.{suffix}").write_bytes(encoded("red", 1, form="JPEG"))

    assert load_dataset(folder).train.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", ["validate", "dev"])
def test_images_beside_the_split_folders_are_an_error(tmp_path, name):
    """Validation would be cut from train, and nobody would miss the folder."""
    for folder in ("train", name, "test"):
        write_tree(tmp_path / folder, {"red": 1, "blue": 1})

    with pytest.raises(DataError, match=f"{name} has images.* are train, .*val"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("label", ["red ", " red", "red\N{NO-BREAK SPACE}"])
def test_a_label_has_no_blanks_at_its_ends(tmp_path, label):
    """Nobody sees that it is another label than `red`."""
    write_tree(tmp_path, {"red": 1})
    shutil.copytree(tmp_path / "red", tmp_path / label)

    with pytest.raises(DataError, match=r"label '[^']*' begins or ends with a blank"):
        load_dataset(tmp_path)


def test_what_has_no_images_may_lie_beside_the_split_folders(tmp_path):
    """Notes, licenses, annotations."""
    write_tree(tmp_path / "train", {"red": 1, "blue": 1})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")

    assert load_dataset(tmp_path).ignored == ("notes/a.txt",)


@pytest.mark.parametrize("place", ["val", "train/green", "train/red/more"])
def test_a_link_to_a_folder_is_named(tmp_path, place):
    """It is not followed, and the images behind it must not be missed in silence."""
    write_tree(tmp_path / "data" / "train", {"red": 1, "blue": 1})
    write_tree(tmp_path / "elsewhere", {"red": 1, "blue": 1})
    (tmp_path / "data" / place).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DataError, match=f"{place} is a link to a folder"):
        load_dataset(tmp_path / "data")


def test_a_folder_of_links_is_not_called_empty(tmp_path):
    """It looks full to whoever has made it."""
    write_tree(tmp_path / "elsewhere", {"red": 1, "blue": 1})
    (tmp_path / "data").mkdir()
    for label in ("red", "blue"):
        (tmp_path / "data" / label).symlink_to(tmp_path / "elsewhere" / label)

    with pytest.raises(DataError, match="data/blue is a link to a folder"):
        load_dataset(tmp_path / "data")


def test_imagenet_wnids_get_their_names(tmp_path):
    """`LOC_synset_mapping.txt` stands beside the splits."""
    write_tree(tmp_path / "train", {"red": 1, "blue": 1})
    (tmp_path / "train" / "red").rename(tmp_path / "train" / "n01440764")
    (tmp_path / "train" / "blue").rename(tmp_path / "train" / "n02123045")
    (tmp_path / "LOC_synset_mapping.txt").write_text(
        "n01440764 tench, Tinca tinca\nn02123045 tabby, tabby cat\n"
    )

    assert load_dataset(tmp_path).label_names == (
        "n01440764 tench, Tinca tinca",
        "n02123045 tabby, tabby cat",
    )


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        (("apple-a", "apple-b", "peach"), ("apple", "apple", "peach")),
        (("t-shirt", "dress"), (None, None)),
        (("car-a", "car-b"), (None, None)),
    ],
)
def test_a_shared_prefix_is_a_group(labels, groups):
    """Only where it tells some labels apart and joins others."""
    assert label_groups(labels) == groups


def test_the_rule_of_groups_is_documented(repository):
    """A fine-grained task is refused without them, so people must know of them."""
    text = (repository / "docs" / "training.md").read_text(encoding="utf-8")
    _, found, rule = text.partition("**Groups** of a fine-grained task are")
    labels = ("apple-fuji", "apple-gala", "peach")

    assert found
    assert all(f"`{label}`" in rule[:400] for label in labels)
    assert label_groups(labels) == ("apple", "apple", "peach")


def test_the_fruit_photos_have_four_groups(data_dir):
    """Ten kinds of apple, pear, peach and nectarine, straight from the tar."""
    dataset = load_dataset(data_dir / "fruits-fine-grained.tar")

    assert set(dataset.groups) == {"apple", "pear", "peach", "nectarine"}
    assert (len(dataset.train), len(dataset.parts["test"])) == (467, 375)
    assert np.bincount(dataset.train.labels).min() >= 30
