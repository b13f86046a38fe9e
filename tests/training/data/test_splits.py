"""Cuts are seeded and fair to every label, and the test split opens once."""

import math
import shutil
from dataclasses import replace
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.texts import MAX_LABEL_CHARACTERS
from tests.training.data.pictures import write_tree
from training.data import ArraySamples, Split, cut, load_dataset
from training.data.dataset import Dataset
from training.data.negatives import join
from training.data.relabel import as_binary
from training.data.stratify import hold_out
from training.errors import DataError


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=8),
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_each_class_keeps_its_share(counts, share, seed):
    """Within one sample of it, and one more for each rare one; never all of a class."""
    labels, each = np.repeat(np.arange(len(counts)), counts), np.array(counts)
    count = round(share * len(labels))
    chosen = hold_out(labels, count=count, seed=seed)

    taken = np.bincount(labels[chosen], minlength=len(counts))
    rare = (share * each < 1).sum()
    assert len(set(chosen.tolist())) == len(chosen) <= count
    assert (taken <= share * each + 1.5).all()
    assert (taken >= share * each - 1.5 - rare).all()
    assert (taken < each).all()
    assert (taken[each > 1] > 0).all() or len(chosen) < len(counts)


@pytest.mark.parametrize("seed", range(5))
def test_what_rounding_leaves_over_goes_to_those_that_lost_most_by_it(seed):
    """A tenth of 19, 11 and 10 is 1.9, 1.1 and 1: two of the first are taken."""
    labels = np.repeat([0, 1, 2], [19, 11, 10])

    chosen = hold_out(labels, count=4, seed=seed)

    assert np.bincount(labels[chosen]).tolist() == [2, 1, 1]


def test_a_rare_label_has_a_sample_on_either_side():
    """Four of a thousand, or two: a tenth is less than half a sample."""
    for positives in (2, 4):
        labels = np.zeros(1000, np.int64)
        labels[:positives] = 1

        chosen = hold_out(labels, count=100, seed=1)

        assert len(chosen) == 100
        assert labels[chosen].sum() == 1


def test_more_labels_than_are_held_out_keep_to_the_count():
    """A hundred labels of five: a tenth has room for half of them."""
    labels = np.repeat(np.arange(100), 5)

    chosen = hold_out(labels, count=50, seed=0)

    assert len(chosen) == len(np.unique(labels[chosen])) == 50


@pytest.mark.parametrize("seed", range(5))
def test_rare_ones_of_several_labels_are_on_either_side(seed):
    """Each has three samples in a thousand, mostly together with others."""
    rng = np.random.default_rng(seed)
    hot = (rng.random((1000, 12)) < 0.2).astype(np.uint8)
    hot[:, 4:] = 0
    for label in range(4, 12):
        hot[rng.choice(1000, 3, replace=False), label] = 1

    chosen = hold_out(hot, count=100, seed=seed)

    inside = hot[chosen].sum(0)
    assert abs(len(chosen) - 100) <= 5
    assert (inside > 0).all()
    assert (inside < hot.sum(0)).all()
    assert (np.abs(inside[:4] - 0.1 * hot[:, :4].sum(0)) <= 4).all()


def test_rare_labels_keep_their_share_beside_frequent_ones():
    """They are served first: what is frequent is made good by what is left."""
    shares = np.array([0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7])
    rng, off = np.random.default_rng(0), []
    for seed in range(50):
        hot = (rng.random((300, 8)) < shares).astype(np.uint8)
        hot[:, 0] &= hot[:, 7]
        held = hold_out(hot, count=60, seed=seed)
        off.append(np.abs(hot[held].sum(0) - hot.sum(0) / 5))

    assert np.max(off) < 3  # of 60 images


def test_each_of_several_labels_keeps_its_share():
    """Also labels that mostly come with others, and rare ones."""
    rng = np.random.default_rng(0)
    hot = (rng.random((2000, 5)) < [0.5, 0.25, 0.1, 0.03, 0.01]).astype(np.uint8)
    chosen = hold_out(hot, count=400, seed=0)

    assert abs(len(chosen) - 400) <= 5
    assert (np.abs(hot[chosen].sum(0) - 0.2 * hot.sum(0)) <= 2).all()


def test_the_same_seed_cuts_the_same(tmp_path):
    """On every machine, so that nobody trains on another's validation images."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 20, "blue": 20}))
    first, second, other = (cut(dataset, seed=seed) for seed in (1, 1, 2))

    assert first.validation.samples.names == second.validation.samples.names
    assert first.validation.samples.names != other.validation.samples.names


def test_the_parts_do_not_overlap(tmp_path):
    """Test, validation and train together are the data set; calibration is of train."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 30, "blue": 30}))
    splits = cut(dataset, validation=0.2, test=10)
    names = [
        set(part.samples.names)
        for part in (splits.train, splits.validation, splits.test)
    ]

    assert [len(part) for part in names] == [40, 10, 10]
    assert len(set.union(*names)) == 60
    assert set(splits.calibration.samples.names) <= names[0]


def test_sizes_can_be_asked_for_without_opening_test(tmp_path):
    """Of two equal shares validation has the smaller part: it is of what test left."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 50, "blue": 50}))
    assert cut(dataset).sizes == {"train": 90, "validation": 10, "test": 0}

    splits = cut(dataset, validation=0.2, test=0.2)
    assert splits.sizes == {"train": 64, "validation": 16, "test": 20}
    assert len(splits.test) == 20


def test_calibration_images_are_of_all_classes_of_a_sorted_set():
    """They are drawn: the first three hundred would be of three classes."""
    pixels, labels = np.zeros((1000, 1, 1, 3), np.uint8), np.arange(1000) // 100
    train = Split("train", ArraySamples("x", pixels, np.arange(1000)), labels)
    names = tuple("abcdefghij")

    calibration = cut(Dataset("x", names, (None,) * 10, {"train": train})).calibration

    assert len(calibration) == 300
    assert (np.bincount(calibration.labels, minlength=10) > 10).all()


def test_the_test_split_opens_once(tmp_path):
    """A figure that is looked at twice has been tuned on."""
    splits = cut(load_dataset(write_tree(tmp_path, {"red": 9, "blue": 9})), test=0.2)
    assert splits.has_test
    assert len(splits.test) == 4

    with pytest.raises(DataError, match="opened before"):
        splits.test  # noqa: B018


def test_without_a_test_split_the_message_says_how_to_get_one(tmp_path):
    """Nothing is invented."""
    splits = cut(load_dataset(write_tree(tmp_path, {"red": 9, "blue": 9})))

    with pytest.raises(DataError, match=r"test = 0\.1"):
        splits.test  # noqa: B018


@pytest.mark.parametrize("validation", [18, math.inf, math.nan])
def test_a_cut_that_leaves_nothing_is_refused(tmp_path, validation):
    """Here 18 of 18 images; the command line reads what is no number of images, too."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 9, "blue": 9}))

    with pytest.raises(DataError, match="leaves none to train on"):
        cut(dataset, validation=validation)


def test_a_cut_that_takes_the_last_image_of_a_label_is_refused(tmp_path):
    """Of several labels an image; one label an image always keeps one in train."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 9, "blue": 1}))
    hot = np.eye(2, dtype=np.uint8)[dataset.train.labels]
    several = replace(dataset, parts={"train": replace(dataset.train, labels=hot)})

    with pytest.raises(DataError, match=r"0\.6 leaves no image of label 'blue' to tra"):
        cut(several, validation=0.6)
    assert set(cut(dataset, validation=0.6).train.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("share", [0.01, 0.02])
def test_a_cut_that_holds_out_nothing_is_refused(tmp_path, share):
    """A test split without an image would be missed at the end of the export."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 12, "blue": 12}))

    with pytest.raises(DataError, match=rf"test = {share} holds out none of the 24 tr"):
        cut(dataset, test=share)
    assert len(cut(dataset, validation=0, test=0.0).validation) == 0


def test_a_binary_question_can_be_asked_of_many_labels(tmp_path):
    """`red` against everything else."""
    write_tree(tmp_path, {"red": 2, "blue": 1, "green": 1})
    dataset = as_binary(load_dataset(tmp_path), ("red",))

    assert dataset.label_names == ("not-red", "red")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(DataError, match=r"\['pink'\] cannot be the positive labels"):
        as_binary(load_dataset(tmp_path), ("pink",))


@pytest.mark.parametrize(("asked", "lies"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_positive_label_is_known_however_its_accents_are_written(
    tmp_path, asked, lies
):
    """A config from Linux asks for what macOS has unpacked; twice is twice."""
    write_tree(tmp_path, {"red": 2, "blue": 1})
    (tmp_path / "red").rename(tmp_path / normalize(lies, "thé"))
    dataset, wanted = load_dataset(tmp_path), normalize(asked, "thé")

    assert as_binary(dataset, (wanted,)).train.labels.tolist() == [0, 1, 1]
    with pytest.raises(DataError, match="named twice"):
        as_binary(dataset, ("thé", normalize("NFD", "thé")))


@pytest.mark.parametrize("labels", [("red", "blue"), ("red", "blue", "green")])
def test_a_positive_label_is_named_once(tmp_path, labels):
    """Twice, it would be called `red-or-red`, or all of two labels would be meant."""
    dataset = load_dataset(write_tree(tmp_path, dict.fromkeys(labels, 1)))

    with pytest.raises(DataError, match="'red' is named twice among the positive lab"):
        as_binary(dataset, ("red", "red"))


def test_many_positive_labels_have_a_name_that_a_bundle_can_have(tmp_path):
    """All of them in a row would be longer than a label may be."""
    breeds = tuple(f"retriever-{n}" for n in range(25))
    photos = load_dataset(write_tree(tmp_path, {"red": 1, "blue": 1}))
    dataset = replace(photos, label_names=(*breeds, "cat", "horse"))

    names = as_binary(dataset, breeds).label_names

    assert names == ("not-retriever-0-or-24-others", "retriever-0-or-24-others")
    assert len(names[0]) <= MAX_LABEL_CHARACTERS


def test_a_split_is_known_by_its_images_wherever_they_lie(tmp_path):
    """In another folder or packed, but not with another name, size or label."""
    write_tree(tmp_path / "here" / "photos", {"red": 3, "blue": 3})
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.make_archive(tmp_path / "packed", "tar", tmp_path / "here" / "photos")
    shutil.make_archive(tmp_path / "packed", "zip", tmp_path / "here" / "photos")
    places = ("here/photos", "there/photos", "packed.tar", "packed.zip")
    here, *same = (load_dataset(tmp_path / place).train for place in places)
    known = here.fingerprint()

    assert [split.fingerprint() for split in same] == [known] * 3
    assert replace(here, labels=1 - here.labels).fingerprint() != known
    photo = tmp_path / "here" / "photos" / "red" / "0.png"
    photo.rename(photo.with_name("9.png"))
    assert load_dataset(tmp_path / "here" / "photos").train.fingerprint() != known
    photo.with_name("9.png").rename(photo)
    photo.write_bytes(photo.read_bytes() + b"more")
    assert here.fingerprint() != known


def test_images_in_memory_are_known_by_their_pixels():
    """Published arrays have no names that would change with them."""
    array = np.random.default_rng(0).integers(256, size=(4, 8, 8, 3), dtype=np.uint8)
    other = array.copy()
    other[2, 0, 0, 0] ^= 1

    one, same, changed = (
        Split("train", ArraySamples("x", pixels, np.arange(4)), np.arange(4))
        for pixels in (array, array.copy(), other)
    )

    assert one.fingerprint() == same.fingerprint() != changed.fingerprint()


def test_joined_images_are_known_by_their_sources(tmp_path):
    """An image that comes from another data set is another one."""
    one, two = (
        load_dataset(write_tree(tmp_path / name, {"red": 2, "blue": 2})).train
        for name in ("one", "two")
    )
    labels = np.zeros(2, np.int64)
    joined = join("train", [one, two])

    first, second = (joined.select(np.array(chosen)) for chosen in ([0, 1], [0, 5]))

    assert replace(first, labels=labels).fingerprint() != (
        replace(second, labels=labels).fingerprint()
    )
