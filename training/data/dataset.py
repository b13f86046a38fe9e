"""samples + labels → **dataset**: what every reader returns and every trainer takes.

Axes: N samples, K labels. Labels are class indices, int64 [N], or for multi-label data
0/1, uint8 [N, K]. Images stay encoded until somebody asks for pixels, and then go
through `classifier.preprocess` like every image that is ever served.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from classifier.errors import ImageError
from classifier.hardware import available_cores
from classifier.manifest import PreprocessSpec
from classifier.preprocess import preprocess
from training.data.tree import Tree
from training.errors import DataError

Labels = NDArray[np.int64] | NDArray[np.uint8]  # [N] or [N, K]
Batch = NDArray[np.uint8]  # [N, H, W, C]

NAMED = 10  # labels in one message


class Samples(Protocol):
    """Images by position: a name for people, the encoded bytes, perhaps the pixels."""

    def __len__(self) -> int:
        """N."""

    def name(self, index: int) -> str:
        """Where the image comes from, for messages."""

    def inner_name(self, index: int) -> str:
        """Its name inside the data set, the same wherever that lies."""

    def read(self, index: int) -> bytes:
        """The image file."""

    def identity(self, index: int) -> str:
        """What tells the image from others without reading its file.

        The same wherever the data set lies, so that a run can go on on another machine.
        """

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "Samples":
        """Some of the samples, in the order of `indices`."""


@dataclass(frozen=True)
class FileSamples:
    """Image files of a tree, read when needed."""

    tree: Tree
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The path of the file, or its name inside the archive."""
        return str(self.tree.where / self.names[index])

    def inner_name(self, index: int) -> str:
        """The path of the file below the folder or the archive."""
        return self.names[index]

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return self.tree.read(self.names[index])

    def identity(self, index: int) -> str:
        """Its name inside the data set, and its size."""
        name = self.names[index]
        return f"{name} {self.tree.size(name)}"

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "FileSamples":
        """Some of the files, in the order of `indices`."""
        return FileSamples(self.tree, tuple(self.names[int(i)] for i in indices))


@dataclass(frozen=True)
class ArraySamples:
    """Images that a data set publishes as one array, uint8 [N, H, W, C]."""

    source: str
    array: Batch
    positions: NDArray[np.int64]  # [N], where each image stands in the published file

    def __len__(self) -> int:
        return len(self.array)

    def name(self, index: int) -> str:
        """The file and the position in it."""
        return f"{self.source}[{self.positions[index]}]"

    def inner_name(self, index: int) -> str:
        """The same: `source` does not say where the data set lies."""
        return self.name(index)

    def read(self, index: int) -> bytes:
        """The image as a lossless PNG, so that it can take the path of every file."""
        pixels = self.array[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        file = BytesIO()
        image.save(file, "PNG", compress_level=1)
        return file.getvalue()

    def identity(self, index: int) -> str:
        """A hash of its pixels, which are in memory anyway."""
        return hashlib.sha256(self.array[index].tobytes()).hexdigest()

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "ArraySamples":
        """Some of the images, in the order of `indices`."""
        chosen = np.asarray(indices, np.int64)
        return ArraySamples(self.source, self.array[chosen], self.positions[chosen])


@dataclass(frozen=True)
class Split:
    """Samples with their labels; `name` is train, validation, calibration or test.

    `scenes` numbers the scene of each sample, int64 [N], where that is known.
    """

    name: str
    samples: Samples
    labels: Labels
    scenes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, indices: NDArray[np.int64], name: str | None = None) -> "Split":
        """Some of the samples, in the order of `indices`, under a name."""
        chosen = self.samples.select(indices)
        scenes = None if self.scenes is None else self.scenes[indices]
        return Split(name or self.name, chosen, self.labels[indices], scenes)

    def pixels(self, spec: PreprocessSpec, *, threads: int | None = None) -> Batch:
        """All images preprocessed, uint8 [N, H, W, C].

        Raises:
            DataError: an image cannot be decoded; the message names the file.
        """
        return read_pixels(self.samples, spec, threads=threads)

    def sha256(self) -> str:
        """One hash over labels and contents, in order: which images a run has seen.

        File names have no part in it: the same images are the same data elsewhere.
        """
        total = hashlib.sha256(np.ascontiguousarray(self.labels).tobytes())
        if isinstance(self.samples, ArraySamples):
            total.update(np.ascontiguousarray(self.samples.array).tobytes())
            return total.hexdigest()
        for index in range(len(self.samples)):
            total.update(hashlib.sha256(self.samples.read(index)).digest())
        return total.hexdigest()

    def fingerprint(self) -> str:
        """One hash over labels, names and sizes, in order: is it the same split?

        It is asked at every start and export, so it reads no file: the contents of an
        ImageNet are 150 GB, names and sizes are a listing. A photo that is exchanged
        for another of the same name and to the byte the same size goes unseen.
        """
        total = hashlib.sha256(np.ascontiguousarray(self.labels).tobytes())
        for index in range(len(self.samples)):
            line = f"{self.samples.identity(index)}\n"
            total.update(line.encode(errors="surrogateescape"))  # as names on disk
        return total.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A data set as published, of which `splits.cut` makes what is missing.

    `parts` holds the splits by name: train, validation, calibration, test. Any of them
    will do to evaluate; to train, train must be there.
    `groups[k]` is the group of label k (apple, pear …) in fine-grained data, else None.
    `ignored` names files that are no images, or images that no row of a CSV has: they
    are reported, not silently dropped. `read_by` says, for people, which CSV had the
    labels, and which of its columns were read and which were not.
    """

    name: str
    label_names: tuple[str, ...]
    groups: tuple[str | None, ...]
    parts: Mapping[str, Split]
    ignored: tuple[str, ...] = field(default=(), repr=False)
    read_by: str = field(default="", repr=False)

    @property
    def train(self) -> Split:
        """The split to learn from."""
        return self.parts["train"]

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several labels."""
        some = next(iter(self.parts.values()))
        return some.labels.ndim == 2  # noqa: PLR2004 - [N, K]


def first_of(names: Sequence[str]) -> str:
    """Names for one message: `cat, dog, horse`, and of many not all."""
    return ", ".join(names[:NAMED]) + (" and others" if names[NAMED:] else "")


def occurring(labels: Labels, count: int) -> NDArray[np.bool_]:
    """Which of the labels occur at all, bool [K]."""
    if labels.ndim > 1:
        return np.asarray(labels.any(0))
    return np.bincount(labels.astype(np.int64), minlength=count) > 0


def decode_sample(samples: Samples, index: int, spec: PreprocessSpec) -> Batch:
    """One image as pixels, uint8 [H, W, C]; a `DataError` names a file that is not."""
    try:
        return preprocess(samples.read(index), spec).pixels
    except ImageError as error:
        raise DataError(f"{samples.name(index)}: {error}") from error


def read_pixels(
    samples: Samples, spec: PreprocessSpec, *, threads: int | None = None
) -> Batch:
    """All images as one array, uint8 [N, H, W, C]."""
    ready = _ready_pixels(samples, spec)
    if ready is not None:
        return ready
    pixels = np.empty((len(samples), *spec.shape), np.uint8)

    def fill(index: int) -> None:
        pixels[index] = decode_sample(samples, index, spec)

    # Threads are enough: Pillow lets go of the interpreter while it decodes.
    with ThreadPoolExecutor(threads or available_cores()) as pool:
        for _ in pool.map(fill, range(len(samples))):
            pass
    return pixels


def _ready_pixels(samples: Samples, spec: PreprocessSpec) -> Batch | None:
    """The array itself where preprocessing would change nothing (a test holds us)."""
    if not isinstance(samples, ArraySamples) or samples.array.shape[1:] != spec.shape:
        return None
    unscaled = spec.resize != "crop" or spec.short_side == min(spec.height, spec.width)
    return samples.array if unscaled else None
