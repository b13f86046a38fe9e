"""CIFAR-10 files → **dataset**: all published formats, and the packed zips.

The python version of CIFAR-10 is a set of pickles, and unpickling can run any code. A
restricted unpickler reads them here: it builds NumPy arrays and refuses every other
name, so a batch file can hold numbers and nothing else. The binary version needs no
unpickling at all. A. Krizhevsky, "Learning Multiple Layers of Features from Tiny
Images", 2009.
"""

import io
import pickle  # only through `_ArrayUnpickler`
import zipfile
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.archives import DAMAGE
from training.data.bounds import MAX_FILE_BYTES, MAX_UNPACKED_BYTES, check_method
from training.data.dataset import ArraySamples, Dataset, Split
from training.data.tree import Tree
from training.errors import DataError

LABELS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SHAPE = (32, 32, 3)  # H, W, C
RECORD_BYTES = 1 + 3072  # label, then red, green and blue planes

PACKED = ("cifar10-train.zip", "cifar10-test.zip")
TRAIN_BATCHES = tuple(f"data_batch_{n}" for n in range(1, 6))
TEST_BATCH = "test_batch"

# What NumPy's own pickles of arrays name, old and new spelling of the module.
ARRAY_NAMES = frozenset(
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
    for name in ("_reconstruct", "ndarray", "dtype", "scalar")
)

Images = NDArray[np.uint8]  # [N, 32, 32, 3]
Indices = NDArray[np.int64]  # [N]


def is_cifar(tree: Tree) -> bool:
    """Whether the tree holds CIFAR-10 in one of the formats."""
    names = set(tree.names)
    return (
        set(PACKED) <= names
        or {*TRAIN_BATCHES, TEST_BATCH} <= names
        or {f"{name}.bin" for name in (*TRAIN_BATCHES, TEST_BATCH)} <= names
    )


def read_cifar(tree: Tree) -> Dataset:
    """Read 50,000 train and 10,000 test images in their published order.

    Raises:
        DataError: a file is damaged, or a pickle holds anything but arrays.
    """
    names = set(tree.names)
    if set(PACKED) <= names:
        train, test = (read_packed(tree, name) for name in PACKED)
    else:
        read = _read_binary if f"{TEST_BATCH}.bin" in names else _read_pickle
        batches = [read(tree, name) for name in TRAIN_BATCHES]
        train = (
            np.concatenate([images for images, _ in batches]),
            np.concatenate([labels for _, labels in batches]),
        )
        test = read(tree, TEST_BATCH)
    return Dataset(
        name="cifar10",
        label_names=LABELS,
        groups=(None,) * len(LABELS),
        parts={"train": _split("train", *train), "test": _split("test", *test)},
    )


def _split(name: str, images: Images, labels: Indices) -> Split:
    if images.shape[1:] != SHAPE or len(images) != len(labels):
        raise DataError(
            f"CIFAR-10 {name}: images {images.shape}, labels {labels.shape}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < len(LABELS):
        raise DataError(f"CIFAR-10 {name}: a label is outside of 0 to 9")
    return Split(
        name, ArraySamples(f"cifar10/{name}", images, np.arange(len(images))), labels
    )


def _read_binary(tree: Tree, name: str) -> tuple[Images, Indices]:
    data = np.frombuffer(tree.read(f"{name}.bin"), np.uint8)
    if not len(data) or len(data) % RECORD_BYTES:
        raise DataError(f"{tree.where / name}.bin is no multiple of 3073 bytes long")
    records = data.reshape(-1, RECORD_BYTES)
    return _planes_last(records[:, 1:]), records[:, 0].astype(np.int64)


def _read_pickle(tree: Tree, name: str) -> tuple[Images, Indices]:
    where = tree.where / name
    try:
        content = tree.read(name)
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        planes, labels = batch[b"data"], batch[b"labels"]
        # Lists may hold themselves many times, and an array may only say its shape.
        if not isinstance(planes, np.ndarray) or planes.nbytes > len(content):
            raise DataError(f"{where} is no CIFAR-10 batch: its data are no array")
        if not isinstance(labels, list) or not all(type(n) is int for n in labels):
            raise DataError(f"{where} is no CIFAR-10 batch: its labels are no numbers")
        return _planes_last(planes.astype(np.uint8)), np.asarray(labels, np.int64)
    except DataError:
        raise
    # A damaged pickle can raise nearly anything; whatever it is, the file is no batch.
    except Exception as error:
        raise DataError(f"{where} is no CIFAR-10 batch: {error}") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays; every other name in the file is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes
            return _latin1
        if (module, name) not in ARRAY_NAMES:
            raise DataError(
                f"a CIFAR-10 batch names {module}.{name}; only arrays are allowed"
            )
        return super().find_class(module, name)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise DataError(f"a CIFAR-10 batch asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _planes_last(planes: Images) -> Images:
    """uint8 [N, 3072], plane by plane → [N, 32, 32, 3]."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def read_packed(tree: Tree, name: str) -> tuple[Images, Indices]:
    """A zip of lossless WebP strips (100 images, top to bottom) and `y.npy`.

    Returns:
        uint8 [N, 32, 32, 3] and int64 [N].
    """
    try:
        with zipfile.ZipFile(io.BytesIO(tree.read(name))) as packed:
            for info in packed.infolist():
                check_method(tree.where / name, info)
            labels = np.load(io.BytesIO(_read(packed, "y.npy")), allow_pickle=False)
            strips = sorted(
                member
                for member in packed.namelist()
                if PurePosixPath(member).suffix == ".webp"
            )
            images, held_bytes = [], 0
            for member in strips:
                images.append(_strip(_read(packed, member)))
                held_bytes += images[-1].nbytes
                if held_bytes > MAX_UNPACKED_BYTES:
                    raise ValueError(f"its images have over {MAX_UNPACKED_BYTES} bytes")
    except (KeyError, ValueError, *DAMAGE) as error:
        raise DataError(f"cannot read {tree.where / name}: {error}") from error
    return np.concatenate(images), labels.astype(np.int64)


def _read(packed: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one member, up to the bound. Raises ValueError above it."""
    with packed.open(name) as member:
        data = member.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{name} has over {MAX_FILE_BYTES} bytes")
    return data


def _strip(data: bytes) -> Images:
    with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, *SHAPE)
