"""What the user says is read as it is meant, or refused by name."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.foreign.strangers import stranger
from training.errors import AnswerError
from training.foreign.answers import PRESETS, parse_answers
from training.foreign.facts import settle
from training.foreign.findings import examine
from training.foreign.verify import normalize

ROOT = Path(__file__).parents[3]
ORANGE = np.array([[[255, 128, 0]]], np.uint8)  # [1, 1, RGB]

# What each library's own code makes of it, in the order of the network's channels.
IMAGENET = [
    (1 - 0.485) / 0.229,
    (128 / 255 - 0.456) / 0.224,
    (0 - 0.406) / 0.225,
]
PREPARED = {
    "torchvision": IMAGENET,
    "timm": IMAGENET,
    "keras-0..1": [1, 128 / 255, 0],
    "keras--1..1": [1, 128 / 127.5 - 1, -1],
    "keras-caffe": [0 - 103.939, 128 - 116.779, 255 - 123.68],  # blue first
    "keras-0..255": [255, 128, 0],
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_prepares_a_pixel_as_its_library_does(tmp_path, preset):
    """A mean of another library gives plausible nonsense, and no proof can see it."""
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd")
    said = {
        "preset": preset,
        "labels": str(tmp_path / "labels.txt"),
        "task": "multiclass",
        "resize": "squash",
        "interpolation": "bilinear",
    }
    if preset in ("keras-0..1", "keras--1..1", "keras-0..255"):  # of either order
        said["color"] = "rgb"

    facts = settle(examine(stranger()), parse_answers(said))

    assert normalize(ORANGE, facts).ravel() == pytest.approx(PREPARED[preset])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_page_has_the_numbers_of_a_preset(preset):
    """By its name alone nobody can tell whether they are those of the training."""
    scale, mean, std, color = PRESETS[preset]
    numbers = [",".join(f"{n:g}" for n in each) for each in ((scale,), mean, std)]
    cells = [f"`{preset}`", *numbers, color or ""]

    lines = (ROOT / "docs/import.md").read_text(encoding="utf-8").splitlines()

    assert cells in [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "30x20", (30, 20)),  # height first
        ("size", "30X20", (30, 20)),
        ("size", "30", (30, 30)),
        ("color", " BGR ", "bgr"),
        ("layout", "nhwc", "NHWC"),
        ("mean", "1, 2,-3e-1", (1, 2, -0.3)),
        ("threshold", "0,1", (0, 1)),
        ("output_name", " scores ", "scores"),
        ("top_k", "3", 3),
        ("background", "1,2,3", (1, 2, 3)),
    ],
)
def test_an_option_is_read_as_it_is_meant(name, text, value):
    """Capitals and blanks around it mean nothing."""
    assert getattr(parse_answers({name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("threshold", "0.5,1.01", "'0.5,1.01'; thresholds are scores from 0 to 1"),
        ("top_k", "0", "'0'; a whole number from 1 on"),
        ("short_side", "-3", "'-3'; a whole number from 1 on"),
        ("scale", "1,255", "'1,255'; one number is needed"),
        ("top_k", "9" * 5000, "'999.*9'; a whole .* of at most 9 digits"),
        ("size", "8x" + "9" * 5000, "'999.*9'; a whole .* of at most 9 digits"),
    ],
)
def test_an_option_that_cannot_be_read_is_named_with_what_can(name, text, why):
    with pytest.raises(AnswerError, match=f"{name} is {why}"):
        parse_answers({name: text})
