"""data sets → **workload**: real images, the bundle that classifies them, and the load.

`photos` is bound by computing (a 500-pixel JPEG through EfficientNet-Lite0), `digits`
by overhead (a 300-byte PNG through LeNet-5): a server good at one may be poor at the
other.
"""

import gzip
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.circumstances import REPOSITORY

DIGITS = 256  # images of the MNIST test set; enough that no cache of answers would help


@dataclass(frozen=True, slots=True)
class Workload:
    """What is sent, to which bundle, over how many connections."""

    name: str
    images: tuple[bytes, ...]
    bundle: Path
    connections: int


def data_root() -> Path:
    """The folder of the data sets: `LINNAEUS_DATA`, else `../shared/data`."""
    return Path(os.environ.get("LINNAEUS_DATA", REPOSITORY.parent / "shared/data"))


def load_workload(name: str, *, data: Path | None = None) -> Workload:
    """Read a workload by name; FileNotFoundError says what is missing."""
    root = data or data_root()
    models = REPOSITORY / "models"
    match name:
        case "photos":
            return Workload(name, read_photos(root), models / "imagenet", 32)
        case "digits":
            return Workload(name, read_digits(root), models / "digits", 64)
    raise ValueError(f"workload is {name!r}; photos and digits exist")


def read_photos(data: Path) -> tuple[bytes, ...]:
    """The sample photos as they lie on disk: JPEG, about 500 x 400, 105 KB."""
    folder = data / "imagenet-samples"
    images = tuple(path.read_bytes() for path in sorted(folder.glob("*.JPEG")))
    if not images:
        raise FileNotFoundError(f"no *.JPEG in {folder}; set LINNAEUS_DATA")
    return images


def read_digits(data: Path, *, n: int = DIGITS) -> tuple[bytes, ...]:
    """The first `n` MNIST test digits as PNG files of 28 x 28, about 300 bytes each."""
    file = data / "mnist/t10k-images-idx3-ubyte.gz"
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; set LINNAEUS_DATA")
    pixels = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16)
    return tuple(_png(digit) for digit in pixels.reshape(-1, 28, 28)[:n])


def _png(pixels: np.ndarray) -> bytes:
    """Encode uint8 [H, W] gray."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()
