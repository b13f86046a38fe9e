"""Small pictures that the tests write: a color a label, each with a mark of its own."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 210)}


def picture(label: str, number: int, *, side: int = 24) -> Image.Image:
    """A patch of the label's color with noise that only this number has."""
    noise = np.random.default_rng(number).integers(-30, 30, (6, 6, 3))
    coarse = np.clip(np.array(COLORS[label]) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encoded(label: str, number: int, *, form: str = "PNG", side: int = 24) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture(label, number, side=side).save(file, form)
    return file.getvalue()


def write_tree(root: Path, counts: dict[str, int], *, first: int = 0) -> Path:
    """`root/LABEL/N.png`, as many of each label as said."""
    for label, count in counts.items():
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(first, first + count):
            (folder / f"{n}.png").write_bytes(encoded(label, n))
    return root
