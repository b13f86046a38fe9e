"""The sheet of mistakes: each image as large as its place allows, and who it is."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from classifier import Classifier
from classifier.manifest import PreprocessSpec, Task
from tests.synthetic import make_bundle
from tests.training.data.pictures import write_tree
from training.data import load_dataset
from training.data.dataset import Split
from training.evaluation.evaluate import evaluate
from training.evaluation.labelled import open_labelled
from training.reports.mistakes import (
    CAPTION,
    TILE,
    Mistake,
    all_mistakes,
    draw_sheet,
)
from training.reports.plots import confusion_plot


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Four small images of two labels."""
    root = write_tree(tmp_path_factory.mktemp("photos"), {"blue": 2, "red": 2})
    return load_dataset(root).parts["train"]


def spec(side: int, color: Literal["rgb", "gray"] = "rgb") -> PreprocessSpec:
    """That of a network which sees squares of `side`."""
    return PreprocessSpec(
        height=side,
        width=side,
        color=color,
        resize="squash",
        short_side=None,
        interpolation="nearest",
        background=(255, 255, 255),
    )


def sheet(split: Split, mistake: Mistake, *, side: int = 24) -> np.ndarray:
    """The sheet of one mistake, uint8 [H, W, 3]; the network sees squares of `side`."""
    drawn = draw_sheet([mistake], split, spec(side))
    assert drawn is not None
    return np.asarray(Image.open(io.BytesIO(drawn)))


def caption(split: Split, answer: str, *, truth: str = "red", score: float = 0.98):
    """What stands under the image."""
    return sheet(split, Mistake(0, truth, answer, score))[TILE:]


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_each_mistake_has_its_tile_as_far_as_the_sheet_goes(
    tmp_path: Path, color: Literal["rgb", "gray"]
):
    """In rows from the left; also as a network of gray images sees them."""
    photos = write_tree(tmp_path / "photos", {"blue": 1, "green": 1})
    split = load_dataset(photos).parts["train"]
    bright = [1, 7, 8]  # the places of the green one, in the first row and the second
    mistakes = [Mistake(int(place in bright), "a", "b", 0.9) for place in range(30)]

    drawn = draw_sheet(mistakes, split, spec(24, color))

    assert drawn is not None
    gray = np.asarray(Image.open(io.BytesIO(drawn)).convert("L"))
    assert gray.shape == (4 * (TILE + CAPTION), 6 * TILE)  # 24 of the 30
    tiles = gray.reshape(4, TILE + CAPTION, 6, TILE)[:, 9 : TILE - 9, :, 9:-9]
    levels = tiles.mean(axis=(1, 3)).ravel()
    assert np.flatnonzero(levels > 90).tolist() == bright


@pytest.mark.parametrize("side", [8, 24, 300])
def test_an_image_fills_its_tile(split: Split, side: int):
    """Also one of few pixels, and one of more than the tile has."""
    tile = sheet(split, Mistake(0, "red", "blue", 0.98), side=side)[:TILE]

    assert tile[4:-4, 4:-4].min(axis=2).max() < 200  # nowhere white


@pytest.mark.parametrize("pair", ["éü", "ßñ", "жя", "ğő"])
def test_letters_of_europe_are_no_boxes(split: Split, pair: str):
    """A font without them draws one box for all."""
    one, other = (caption(split, letter) for letter in pair)

    assert not np.array_equal(one, other)


def test_a_long_name_leaves_room_for_the_score_and_for_the_next_tile(split: Split):
    """Wide letters take more of it than narrow ones: they are measured, not counted."""
    name = 60 * "W"
    sure, unsure = (caption(split, name, truth=name, score=s) for s in (0.98, 0.12))

    assert sure[:, -4:].min() > 230  # white
    assert not np.array_equal(sure, unsure)


def test_a_no_is_called_what_the_bundle_calls_it(tmp_path):
    """Nobody knows `not red` where the negatives are `pale`."""
    folder = make_bundle(tmp_path / "models", "red", Task.BINARY)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"not red"', '"pale"'))
    detector = Classifier.load(folder)
    photos = write_tree(tmp_path / "photos", {"red": 2, "green": 2})
    found = evaluate(detector, *open_labelled(photos, detector.manifest, split="all"))
    wrong = replace(found, truth=~found.truth)

    assert {(each.truth, each.answer) for each in all_mistakes(wrong)} == {
        ("red", "pale"),
        ("pale", "red"),
    }
    yes = found.scores[:, 0]
    sure = np.where(found.predicted, yes, 1 - yes)  # of what it has answered
    found_sure = {each.index: each.score for each in all_mistakes(wrong)}
    assert found_sure == pytest.approx(dict(enumerate(sure)))
    assert confusion_plot(found) != confusion_plot(replace(found, negative="not red"))
