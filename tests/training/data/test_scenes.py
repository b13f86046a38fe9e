"""Photos of one scene stay together, however one knows that they are of one scene."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.data.pictures import write_tree
from training.data import cut, load_dataset
from training.data.scenes import scenes_by_likeness, scenes_by_name
from training.data.stratify import hold_out
from training.errors import DataError


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(r"patient(\d+)", [0, 1, 0, 2]), (r"(\w)/.*_(\d)", [0, 0, 1, 2]), ("/", [0] * 4)],
    ids=["one group", "two groups", "no group"],
)
def test_names_that_match_in_the_same_words_are_one_scene(pattern, expected):
    """A patient's number, a shop and a day, or whatever the names hold."""
    names = ["a/patient7_1.png", "a/patient8_1.png", "b/patient7_1.png", "b/patient3_2"]

    assert scenes_by_name(names, pattern).tolist() == expected


def test_a_name_without_its_scene_is_refused():
    """Silently alone, it would be parted from its own."""
    with pytest.raises(DataError, match=r"'shop\(\.\)', which b\.jpg does not match"):
        scenes_by_name(["shop1.jpg", "b.jpg"], "shop(.)")


def views(scenes: int, each: int, noise: float, seed: int = 0) -> np.ndarray:
    """Features of photos of some scenes, one scene after the other."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(scenes, 64)).repeat(each, axis=0)
    made = centers + noise * generator.normal(size=centers.shape)
    return made.astype(np.float32)


def test_photos_that_look_alike_are_one_scene():
    """Six scenes of five photos are found again; unlike photos stay by themselves."""
    labels = np.repeat([0, 1], 15)

    found = scenes_by_likeness(views(6, 5, 0.4), labels, likeness=0.5)
    alone = scenes_by_likeness(views(30, 1, 0.4), labels, likeness=0.5)

    assert found.reshape(6, 5).std(axis=1).max() == 0
    assert len(np.unique(found)) == 6
    assert len(np.unique(alone)) == 30


def test_a_chain_of_neighbors_is_not_one_scene():
    """A camera that turns: each photo is like the next, and the first not the last."""
    angles = np.deg2rad(np.arange(0, 360, 20))
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    found = scenes_by_likeness(features, np.zeros(18, np.int64), likeness=0.9)

    # of three in a row the mean likeness of the pairs is 0.88
    assert np.bincount(found).max() == 2


def test_the_same_view_under_two_labels_is_two_scenes():
    """Peach and nectarine lie on one shelf; each label is cut by itself."""
    features, labels = views(1, 4, 0.01), np.array([0, 0, 1, 1])

    assert len(np.unique(scenes_by_likeness(features, labels, likeness=0.5))) >= 2


def test_several_labels_an_image_are_one_kind():
    """A scene's photos have the same labels, also where each has many."""
    features = views(2, 4, 0.1)
    hot = np.repeat(np.array([[1, 0, 1], [0, 1, 1]], np.uint8), 4, axis=0)

    found = scenes_by_likeness(features, hot, likeness=0.3)

    assert found[:4].tolist() != found[4:].tolist()
    assert not set(found[:4].tolist()) & set(found[4:].tolist())


def test_too_many_photos_to_compare_are_refused():
    """All pairs of a label do not fit into memory; the message says what does."""
    features = np.zeros((5001, 1), np.float32)

    with pytest.raises(DataError, match=r"at most 5000; one has 5001.*data\.series"):
        scenes_by_likeness(features, np.zeros(5001, np.int64), likeness=0.5)


@given(
    scenes=st.lists(st.integers(1, 9), min_size=8, max_size=40),
    labels=st.integers(1, 4),
    share=st.floats(0.1, 0.4),
    seed=st.integers(0, 9),
)
@settings(max_examples=80, deadline=None)
def test_a_hold_out_parts_no_scene_and_keeps_every_label_in_train(
    scenes, labels, share, seed
):
    """And holds out about the share that was asked for, as far as scenes allow."""
    of_image = np.repeat(np.arange(len(scenes)), scenes)
    truth = of_image % labels
    count = round(share * len(truth))

    inside = hold_out(truth, count=count, seed=seed, scenes=of_image)

    outside = np.setdiff1d(np.arange(len(truth)), inside)
    assert not set(of_image[inside]) & set(of_image[outside])
    assert set(truth[outside]) == set(truth)
    assert abs(len(inside) - count) <= max(scenes) * labels


def test_scenes_of_several_labels_are_held_out_whole():
    """A photo has a car and a bus; its scene still has one side."""
    generator = np.random.default_rng(0)
    of_image = np.repeat(np.arange(60), 5)
    hot = (generator.random((60, 4)) < 0.4).astype(np.uint8).repeat(5, axis=0)

    inside = hold_out(hot, count=60, seed=0, scenes=of_image)

    assert len(np.unique(of_image[inside])) * 5 == len(inside)
    assert (np.abs(hot[inside].sum(0) / hot.sum(0) - 0.2) <= 0.12).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_label_has_a_scene_on_either_side(seed):
    """Of fifty patients three are ill; one of them takes the place of a healthy one."""
    of_image = np.repeat(np.arange(50), 20)
    ill = np.isin(of_image, [3, 17, 40]) & (np.arange(1000) % 20 < 10)
    labels = ill.astype(np.int64)

    inside = hold_out(labels, count=100, seed=seed, scenes=of_image)

    assert labels[inside].sum() == 10
    assert abs(len(inside) - 100) <= 20


def test_the_only_scene_of_a_label_stays_in_train():
    """Twelve kinds at ten sites, a thirteenth at one of them: any share may want it."""
    sites, kinds = np.arange(10).repeat(12), np.tile(np.arange(12), 10)
    of_image, labels = np.append(sites, [3, 3]), np.append(kinds, [12, 12])

    for seed, count in product(range(10), range(12, 122, 11)):
        inside = hold_out(labels, count=count, seed=seed, scenes=of_image)
        assert 3 not in of_image[inside]
        assert len(np.unique(of_image[inside])) < 10


def test_scenes_of_rare_labels_that_come_together_are_on_either_side():
    """Two labels of two scenes each, one of them the same."""
    of_image = np.repeat(np.arange(40), 5)
    hot = np.zeros((200, 3), np.uint8)
    hot[:, 0] = 1
    for label, scenes in ((1, (4, 9)), (2, (9, 30))):
        hot[np.isin(of_image, scenes), label] = 1

    inside = hold_out(hot, count=20, seed=0, scenes=of_image)

    assert len(inside) == 20
    assert (hot[inside].sum(0) > 0).all()
    assert (hot[inside].sum(0) < hot.sum(0)).all()


def test_a_cut_keeps_scenes_together_and_remembers_them(tmp_path):
    """Test and validation have scenes of their own, and each split knows its scenes."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 40, "blue": 40}))
    train = replace(dataset.train, scenes=np.arange(80) // 4)
    known = replace(dataset, parts={"train": train})
    splits = cut(known, validation=0.2, test=0.2)

    parts = [splits.train, splits.validation, splits.test]
    seen = [set(part.scenes.tolist()) for part in parts]
    assert [len(part) for part in parts] == [48, 16, 16]
    assert not seen[0] & seen[1]
    assert not seen[2] & (seen[0] | seen[1])


def test_a_share_smaller_than_any_scene_is_refused(tmp_path):
    """Of five scenes a label, one is twice the tenth: training would run unwatched."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 20, "blue": 20}))
    train = replace(dataset.train, scenes=np.arange(40) // 4)
    known = replace(dataset, parts={"train": train})

    with pytest.raises(DataError, match=r"validation = 0\.1 .* 40 .* of 10 scene\(s\)"):
        cut(known)
    assert len(cut(known, validation=0.2).validation) == 8


def test_one_scene_cannot_be_cut(tmp_path):
    """All of it would be held out, and nothing be there to train on."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 5, "blue": 5}))
    train = replace(dataset.train, scenes=np.zeros(10, np.int64))

    with pytest.raises(DataError, match=r"validation = 0\.6 holds out .* 1 scene\(s\)"):
        cut(replace(dataset, parts={"train": train}), validation=0.6)
