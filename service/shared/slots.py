"""memory of two processes → **slots**: an image's pixels there, its scores back.

A front-end writes the pixels of an image into a free slot, the engine's process runs
them from there and writes logits and scores over them. The memory has no name and no
file: it is handed to a child with its descriptor, and is gone with the last process.
"""

import mmap
import os
import tempfile
from collections.abc import Iterable
from typing import Self

import numpy as np
import numpy.typing as npt

from classifier.manifest import Manifest

FLOAT_BYTES = 4
ALIGNED = 64  # a slot begins with a cache line

Floats = npt.NDArray[np.float32]


def slot_bytes(manifests: Iterable[Manifest]) -> int:
    """Room for the pixels of an image of any model, and for its logits and scores."""
    needed = 1
    for manifest in manifests:
        height, width, channels = manifest.preprocess.shape
        needed = max(
            needed, height * width * channels, 2 * FLOAT_BYTES * manifest.logits
        )
    return -(-needed // ALIGNED) * ALIGNED


def open_memory(size: int) -> int:
    """The descriptor of so many bytes that child processes may be given."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("linnaeus-slots")
    else:  # not Linux
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


class Slots:
    """A view of that memory, in slots of equal size."""

    def __init__(self, memory: mmap.mmap, size: int) -> None:
        self._memory = memory
        self._size = size
        self.count = len(memory) // size

    @classmethod
    def of(cls, descriptor: int, size: int) -> Self:
        """Map the memory of a descriptor, which may be closed after that."""
        return cls(mmap.mmap(descriptor, os.fstat(descriptor).st_size), size)

    def pixels(
        self, slot: int, shape: tuple[int, int, int]
    ) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
        """A slot as uint8 [H, W, C]; writing to it writes to the slot."""
        height, width, channels = shape
        flat = np.frombuffer(
            self._memory, np.uint8, height * width * channels, slot * self._size
        )
        return flat.reshape(shape)

    def write_result(self, slot: int, logits: Floats, scores: Floats) -> None:
        """Put logits and scores, float32 [K] each, in the place of the pixels."""
        result = self._floats(slot, len(logits))  # float32 [2, K]
        result[0], result[1] = logits, scores

    def read_result(self, slot: int, count: int) -> tuple[Floats, Floats]:
        """Copies of the logits and scores, float32 [K] each."""
        logits, scores = self._floats(slot, count).copy()
        return logits, scores

    def _floats(self, slot: int, count: int) -> Floats:
        flat = np.frombuffer(self._memory, np.float32, 2 * count, slot * self._size)
        return flat.reshape(2, count)
