"""The files that broke other readers: each as its manifest expects, none slow."""

import csv
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from classifier.decode import MAX_EXIF_BYTES
from classifier.errors import ImageError
from classifier.manifest import PreprocessSpec
from classifier.preprocess import preprocess
from tests.classifier.files import encode, picture
from tests.classifier.test_decode import decoded

SPEC = PreprocessSpec(
    height=64,
    width=64,
    color="rgb",
    resize="squash",
    short_side=None,
    interpolation="bilinear",
    background=(255, 255, 255),
)
PHOTO = "xmp_test.jpg"  # 2000x1072, 1.8 MB: ordinary work


class Awkward(NamedTuple):
    """One file and what is expected of it."""

    path: Path
    expect: str
    twin: str


@pytest.fixture(scope="session")
def awkward(data_dir) -> tuple[Awkward, ...]:
    """Every file of the collection."""
    table = data_dir / "awkward" / "manifest.csv"
    if not table.is_file():
        pytest.skip(f"no awkward files: {table} is missing")
    with table.open(newline="", encoding="utf-8") as rows:
        return tuple(
            Awkward(
                table.parent / row["filename"], row["expect"], row["same_picture_as"]
            )
            for row in csv.DictReader(rows)
        )


def outcome(file: Awkward) -> str:
    """`classify`, or `reject` with a typed error; anything else is not caught."""
    try:
        decoded(file.path.read_bytes())
    except ImageError:
        return "reject"
    return "classify"


def test_each_file_is_read_or_refused_as_expected(awkward):
    """Where either will do, it is still one of the two."""
    found = {file.path.name: outcome(file) for file in awkward}

    wrong = {
        file.path.name: found[file.path.name]
        for file in awkward
        if file.expect not in {"either", found[file.path.name]}
    }

    assert len(awkward) >= 80
    assert wrong == {}


def test_no_file_costs_much_more_than_an_ordinary_photo(awkward):
    """Processor time, so that a busy machine does not matter."""
    costs = {}
    for file in awkward:
        outcome(file)  # its decoder is imported now
        started_s = time.thread_time()
        outcome(file)
        costs[file.path.name] = time.thread_time() - started_s

    slowest = max(costs, key=lambda name: costs[name])
    assert costs[slowest] < 10 * costs[PHOTO], slowest


def test_twins_look_alike(awkward):
    """Another format, orientation or ink of one picture gives close pixels."""
    pixels = {
        file.path.name: preprocess(file.path.read_bytes(), SPEC).pixels.astype(int)
        for file in awkward
        if outcome(file) == "classify"
    }

    apart = {
        f"{file.path.name} {file.twin}": np.abs(
            pixels[file.path.name] - pixels[file.twin]
        ).mean()
        for file in awkward
        if file.twin and file.path.name in pixels
    }

    assert len(apart) >= 15
    assert {pair: off for pair, off in apart.items() if off > 16} == {}


def test_a_twin_that_lies_on_its_side_would_be_noticed(awkward):
    """The check above can fail: a flipped picture is further apart than any twin."""
    [upright] = [file for file in awkward if file.path.name == "hopper.jpg"]
    pixels = preprocess(upright.path.read_bytes(), SPEC).pixels.astype(int)

    assert np.abs(pixels - pixels[:, ::-1]).mean() > 32
    assert np.abs(pixels - pixels[::-1]).mean() > 32


@pytest.mark.parametrize(("spare_bytes", "size"), [(0, (32, 48)), (2**19, (48, 32))])
def test_exif_over_the_bound_is_left_unread_in_a_text_of_a_png_too(spare_bytes, size):
    """ImageMagick writes it so, in hexadecimal: two characters a byte."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes() + bytes(spare_bytes)
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(content)}\n{content.hex()}")
    assert (2 * len(content) > MAX_EXIF_BYTES) == bool(spare_bytes)

    assert decoded(encode(picture(), "PNG", pnginfo=text)).image.size == size
