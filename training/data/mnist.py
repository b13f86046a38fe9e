"""IDX files → **dataset**: MNIST and its cousins as published, gzipped or not.

Magic number (two zero bytes, type 8 = uint8, number of axes), the size of each axis as
a big-endian uint32, then the bytes. Y. LeCun and others, "Gradient-based learning
applied to document recognition", 1998.
"""

import gzip
import io
import math
import zlib

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import ArraySamples, Dataset, Split
from training.data.tree import Tree
from training.errors import DataError

PREFIX = {"train": "train", "test": "t10k"}
DIGITS = tuple(str(digit) for digit in range(10))
UINT8 = 8
MAX_BYTES = 1 << 30  # a gzip of a megabyte can claim a gigabyte; MNIST is 47 MB


def is_mnist(tree: Tree) -> bool:
    """Whether the tree holds the four IDX files."""
    return all(
        _find(tree, prefix, kind)
        for prefix in PREFIX.values()
        for kind in ("images", "labels")
    )


def read_mnist(tree: Tree) -> Dataset:
    """Read 60,000 train and 10,000 test images, uint8 [N, 28, 28, 1].

    Raises:
        DataError: a file is damaged, or images and labels do not match.
    """
    splits = {name: _split(tree, name) for name in PREFIX}
    return Dataset(name="mnist", label_names=DIGITS, groups=(None,) * 10, parts=splits)


def _split(tree: Tree, name: str) -> Split:
    images = _read_idx(tree, _find(tree, PREFIX[name], "images"), axes=3)
    labels = _read_idx(tree, _find(tree, PREFIX[name], "labels"), axes=1)
    if len(images) != len(labels) or (labels.size and labels.max() >= len(DIGITS)):
        raise DataError(
            f"{tree.where}: {len(images)} {name} images, {len(labels)} labels up to "
            f"{labels.max(initial=0)}; expected as many, and labels of 0 to 9"
        )
    samples = ArraySamples(f"mnist/{name}", images[..., None], np.arange(len(images)))
    return Split(name, samples, labels.astype(np.int64))


def _find(tree: Tree, prefix: str, kind: str) -> str:
    """The file's name in one of the spellings in circulation, or ''."""
    axes = 3 if kind == "images" else 1
    stems = (f"{prefix}-{kind}-idx{axes}-ubyte", f"{prefix}-{kind}.idx{axes}-ubyte")
    spellings = (f"{stem}{suffix}" for stem in stems for suffix in ("", ".gz"))
    return next((name for name in spellings if name in tree.names), "")


def _read_idx(tree: Tree, name: str, *, axes: int) -> NDArray[np.uint8]:
    data = tree.read(name)
    if name.endswith(".gz"):
        data = _gunzip(data, name)
    header = 4 + 4 * axes
    sizes = np.frombuffer(data[4:header].ljust(header - 4, b"\0"), ">u4")
    shape = tuple(sizes.tolist())
    if data[:4] != bytes((0, 0, UINT8, axes)) or len(data) - header != math.prod(shape):
        raise DataError(
            f"{tree.where / name} is no IDX file of uint8 with {axes} axes: "
            f"it starts with {data[:4].hex()} and is {len(data)} bytes long"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _gunzip(data: bytes, name: str) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            unpacked = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot unpack {name}: {error}") from error
    if len(unpacked) > MAX_BYTES:
        raise DataError(f"{name} unpacks to more than {MAX_BYTES >> 20} MiB")
    return unpacked
