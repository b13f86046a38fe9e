"""data sets → **workload**: real images, the bundle that classifies them, and the load.

`photos` is bound by computing (a 500-pixel JPEG through EfficientNet-Lite0), `digits`
by overhead (a 300-byte PNG through LeNet-5): a server good at one may be poor at the
other.
"""

import argparse
import gzip
import io
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.circumstances import REPOSITORY
from classifier.names import image_files

DIGITS = 256  # images of the MNIST test set; enough that no cache of answers would help
MOST_IMAGES, MOST_BYTES = 256, 16_000_000  # of a folder


@dataclass(frozen=True, slots=True)
class Workload:
    """What is sent, to which bundle, over how many connections."""

    name: str
    images: tuple[bytes, ...]
    bundle: Path
    connections: int

    def described(self) -> dict[str, Any]:
        """For a record: images and model need not be those of the name."""
        return {
            "workload": self.name,
            "model": self.bundle.name,
            "images": len(self.images),
            "image_bytes_median": statistics.median(map(len, self.images)),
        }


def data_root() -> Path:
    """The folder of the data sets: `LINNAEUS_DATA`, else `../shared/data`."""
    return Path(os.environ.get("LINNAEUS_DATA", REPOSITORY.parent / "shared/data"))


def load_workload(
    name: str,
    *,
    data: Path | None = None,
    images: Path | None = None,
    models: Path = REPOSITORY / "models",
    model: str | None = None,
) -> Workload:
    """A workload by name, with other images or another bundle where they are given.

    It keeps its name, which then stands for the connections and for what the peers are
    tuned to. FileNotFoundError says what is missing.
    """
    match name:
        case "photos":
            read, bundle, connections = read_photos, "imagenet", 32
        case "digits":
            read, bundle, connections = read_digits, "digits", 64
        case _:
            raise ValueError(f"workload is {name!r}; photos and digits exist")
    sent = read(data or data_root()) if images is None else read_images(images)
    return Workload(name, sent, models / (model or bundle), connections)


def chosen_workload(options: argparse.Namespace, name: str | None = None) -> Workload:
    """The one of a command line; with `name`, one of several."""
    return load_workload(
        name or options.workload,
        images=options.images,
        models=options.models,
        model=options.model,
    )


def read_images(folder: Path) -> tuple[bytes, ...]:
    """The image files of a folder and those below it, as they lie on disk.

    Of many, some from all over the folder: the load client holds all of them, several
    times.
    """
    files = image_files(folder)
    if not files:
        raise FileNotFoundError(f"no images in {folder}")
    size = sum(file.stat().st_size for file in files)
    step = max(-(-len(files) // MOST_IMAGES), -(-size // MOST_BYTES))
    return tuple(file.read_bytes() for file in files[::step])


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
