"""What the probe sees of a photo: as it is served, mirrored, and cuts of all of it."""

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classifier.manifest import PreprocessSpec
from classifier.session import Session
from training.configs.sections import DataConfig
from training.data import load_dataset
from training.data.dataset import ArraySamples, Split, read_pixels
from training.networks import build
from training.transfer.features import (
    BATCH,
    FeatureCache,
    cut_generators,
    cuts,
    embedding_graph,
    whole_photo,
)

SERVED = {
    "height": 32,
    "width": 32,
    "color": "rgb",
    "interpolation": "bicubic",
    "background": (255, 255, 255),
}


def test_cuts_come_from_the_whole_photo():
    """Where the middle is served, near, the rest of the photo still teaches."""
    near = PreprocessSpec(resize="crop", short_side=64, **SERVED)

    whole = whole_photo(near)

    assert whole.short_side == 32
    assert whole.shape == near.shape
    assert PreprocessSpec.model_validate(whole.model_dump()) == whole


def test_a_squashed_photo_is_whole_already():
    """There is nothing to add."""
    squashed = PreprocessSpec(resize="squash", short_side=None, **SERVED)

    assert whole_photo(squashed) == squashed


def test_half_of_the_cuts_are_mirrored():
    """A ramp that rises to the right falls in about every second cut."""
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, None, :, None], (20, 32, 32, 3))

    rising = [
        float(image[0, -1, 0]) > float(image[0, 0, 0])
        for cut in cuts(pixels.copy(), 0.5, cut_generators(20, 10, 0.5, seed=0))
        for image in cut
    ]

    assert 0.4 < np.mean(rising) < 0.6


def test_cuts_are_the_same_for_the_same_seed():
    """A cached feature is what would be computed again."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)

    one, again = (list(cuts(pixels, 0.3, cut_generators(3, 2, 0.3, 4))) for _ in "ab")

    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], one[1])


def test_cuts_of_pieces_are_those_of_all_images_cut_again_and_again():
    """One generator for all, as features were computed that lie in caches."""
    pixels = np.random.default_rng(0).integers(0, 256, (37, 16, 16, 3), np.uint8)
    pieces = [pixels[i : i + BATCH] for i in range(0, 37, BATCH)]
    one = torch.Generator().manual_seed(4)
    expected = [
        np.concatenate([next(cuts(piece, 0.3, [one])) for piece in pieces])
        for _ in range(3)
    ]

    generators = cut_generators(37, 3, 0.3, seed=4)
    in_turn = [list(cuts(piece, 0.3, generators)) for piece in pieces]

    for crop in range(3):
        found = np.concatenate([piece[crop] for piece in in_turn])
        assert np.array_equal(found, expected[crop])


def test_features_say_how_many_there_are_and_are_computed_once(
    three_images: Split, tmp_path: Path
):
    """Two views and two cuts of three images, and nothing the second time."""
    network = build("lenet5", classes=2, image_size=32)
    data = DataConfig(
        path="", height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3
    )  # fmt: skip
    graph, said = embedding_graph(network, data), io.StringIO()

    first, again = (
        FeatureCache(graph, data, tmp_path, live=said).features(
            three_images, crops=2, smallest=0.5, seed=0
        )
        for _ in range(2)
    )

    assert first.shape == (4, 3, 84)
    assert np.array_equal(first, again)
    assert said.getvalue().splitlines() == [
        "features of 4 x 3 images",
        "features of 3 images from the cache",
    ]


def test_features_are_those_of_the_views_that_are_named(tmp_path: Path):
    """As it is, mirrored, and a cut of all of the photo, each of its own image."""
    images = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8)
    samples = ArraySamples("x", images, np.arange(20))
    data = DataConfig(
        path="", height=32, width=32, resize="crop", short_side=48,
        mean=(0.5,) * 3, std=(0.25,) * 3,
    )  # fmt: skip
    graph = embedding_graph(build("lenet5", classes=2, image_size=32), data)

    found = FeatureCache(graph, data, tmp_path).features(
        Split("train", samples, np.zeros(20, np.int64)), crops=1, smallest=1.0, seed=0
    )

    run, pixels = Session.load(graph).run, read_pixels(samples, data.spec)
    photos = read_pixels(samples, whole_photo(data.spec))
    generators = cut_generators(20, 1, 1.0, 0)
    cropped = [
        run(next(cuts(photos[i : i + BATCH], 1.0, generators)))
        for i in range(0, 20, BATCH)
    ]
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    assert np.allclose(found[0], run(pixels), atol=1e-4)
    assert np.allclose(found[1], run(mirrored), atol=1e-4)
    assert np.allclose(found[2], np.concatenate(cropped), atol=1e-4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda whole: whole[:100],
        lambda whole: whole[:-4],
        lambda whole: b"PK" + whole[2:],
        lambda whole: whole.replace(b"{", b"("),
        lambda whole: whole.replace(b"(3, 3, ", b"(9999999"),
    ],
    ids=["empty", "head", "short", "zip", "syntax", "shape"],
)
def test_features_that_are_damaged_are_computed_again(
    three_images: Split,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
):
    """All runs on these images share them; the file is named."""
    data = DataConfig(
        path="", height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3
    )  # fmt: skip
    graph = embedding_graph(build("lenet5", classes=2, image_size=32), data)

    def features() -> np.ndarray:
        cache = FeatureCache(graph, data, tmp_path)
        return cache.features(three_images, crops=1, smallest=0.5, seed=0)

    whole = features()
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(damage(file.read_bytes()))

    assert np.array_equal(features(), whole)
    assert f"{file} is damaged" in caplog.text
    assert np.array_equal(np.load(file), whole)


def test_features_of_anything_else_are_computed_anew(
    three_images: Split, tmp_path: Path
):
    """Other images or another order of them, another network, other pixels, other
    cuts: what lies in the cache is of none of these.
    """
    data = DataConfig(
        path="", height=32, width=32, resize="crop", short_side=32,
        mean=(0.5,) * 3, std=(0.25,) * 3,
    )  # fmt: skip
    squashed = data.model_copy(update={"resize": "squash", "short_side": None})
    one, other = (
        embedding_graph(build("lenet5", classes=2, image_size=32), data) for _ in "ab"
    )
    turned = three_images.select(np.array([1, 0, 2]))
    cuts = {"crops": 1, "smallest": 0.5, "seed": 0}
    asked = [
        (one, data, three_images, cuts),
        (other, data, three_images, cuts),
        (one, squashed, three_images, cuts),
        (one, data, turned, cuts),
        *(
            (one, data, three_images, cuts | change)
            for change in ({"crops": 2}, {"smallest": 0.6}, {"seed": 1})
        ),
    ]

    reused = []
    for graph, pixels, split, wanted in [*asked, asked[0]]:
        store = FeatureCache(graph, pixels, tmp_path)
        store.features(split, **wanted)
        reused.append(store.reused)

    assert reused == [False] * len(asked) + [True]


def test_the_pixels_of_all_images_are_never_held(tmp_path: Path):
    """Nor of all views: a set of photos may be larger than the memory."""
    network = build("lenet5", classes=2, image_size=96)
    data = DataConfig(
        path="", height=96, width=96, resize="squash", mean=(0.5,) * 3, std=(0.25,) * 3
    )  # fmt: skip
    array = np.random.default_rng(0).integers(0, 256, (320, 8, 8, 3), np.uint8)
    split = Split("train", ArraySamples("x", array, np.arange(320)), np.zeros(320))
    store = FeatureCache(embedding_graph(network, data), data, tmp_path)
    store.features(split.select(np.arange(2)), crops=1, smallest=0.5, seed=0)

    tracemalloc.start()
    try:
        features = store.features(split, crops=1, smallest=0.5, seed=0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most - features.nbytes < 320 * 96 * 96 * 3 / 2


@pytest.fixture
def three_images(tmp_path: Path) -> Split:
    """The train split of a folder."""
    generator = np.random.default_rng(0)
    for number, label in enumerate("aab"):
        folder = tmp_path / "data" / "train" / label
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return load_dataset(tmp_path / "data").train
