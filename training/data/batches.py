"""split → **batches**: on the device at once, or streamed from worker processes.

Order and randomness are functions of (seed, epoch, step) alone, so a run that goes on
after a kill meets the same batches without having stored anything but the step.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from classifier.hardware import available_cores
from classifier.manifest import PreprocessSpec
from training.data.dataset import Split, decode_sample
from training.errors import DataError


@dataclass(frozen=True)
class Batch:
    """Some samples on the device."""

    pixels: Tensor  # uint8 [N, H, W, C]
    labels: Tensor  # int64 [N] or uint8 [N, K]
    indices: Tensor  # int64 [N], positions in the split


class Batches(Protocol):
    """What the loop iterates over."""

    samples: int

    def steps(self) -> int:
        """Full batches in an epoch."""

    def epoch(self, number: int, *, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, shuffled by seed and number, from `first_step`."""


@dataclass(frozen=True)
class Order:
    """Which samples make up which batch, for one of `world` ranks.

    What does not fill a batch is left out; another epoch's order has it.
    """

    samples: int
    batch_size: int  # images that a step learns from, over all ranks
    seed: int
    rank: int = 0
    world: int = 1
    kept: float = 1.0  # the part of a batch that they are, where a proxy selects them

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            raise DataError(
                f"batch size {self.batch_size} does not divide by {self.world} ranks"
            )
        if self.steps < 1:
            size = f"batch size {self.batch_size}"
            if self.kept < 1:
                size += f", chosen by [selection] from {self.images_a_step} images,"
            raise DataError(f"{size} is larger than the {self.samples} training images")

    @property
    def images_a_step(self) -> int:
        """In a batch, over all ranks: each selects from its own part of it."""
        return self.world * round(self.batch_size / self.world / self.kept)

    @property
    def steps(self) -> int:
        """Full batches in an epoch."""
        return self.samples // self.images_a_step

    def batches(self, epoch: int, first_step: int) -> Tensor:
        """Indices, int64 [steps, N / world], a row for each batch that is left."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(self.samples, generator=generator)
        whole = order[: self.steps * self.images_a_step].view(self.steps, -1)
        return whole[first_step:, self.rank :: self.world]


class ResidentBatches:
    """The whole split as one uint8 tensor on the device."""

    def __init__(
        self, pixels: np.ndarray, labels: np.ndarray, order: Order, device: torch.device
    ) -> None:
        self.samples = order.samples
        self._order = order
        # Copied: a published array may be read-only, which torch warns about.
        self._pixels = torch.tensor(pixels, device=device)  # uint8 [N, H, W, C]
        self._labels = torch.tensor(labels, device=device)

    def steps(self) -> int:
        """Full batches in an epoch."""
        return self._order.steps

    def epoch(self, number: int, *, first_step: int = 0) -> Iterator[Batch]:
        """Gathers each batch on the device.

        The order goes there at once: a GPU's queue runs dry while a step waits for it.
        """
        order = self._order.batches(number, first_step).to(self._pixels.device)
        for indices in order:
            # whole images at a time, where indexing would look at each of their bytes
            pixels = self._pixels.index_select(0, indices)
            yield Batch(pixels, self._labels[indices], indices)


class StreamedBatches:
    """Worker processes decode ahead; for sets that do not fit into memory."""

    def __init__(
        self,
        split: Split,
        spec: PreprocessSpec,
        order: Order,
        device: torch.device,
        *,
        workers: int | None = None,
    ) -> None:
        self.samples = order.samples
        self._order, self._device = order, device
        self._labels = torch.tensor(split.labels)
        self._decoding = _Decoding(split, spec)
        self._workers = available_cores() if workers is None else workers

    def steps(self) -> int:
        """Full batches in an epoch."""
        return self._order.steps

    def epoch(self, number: int, *, first_step: int = 0) -> Iterator[Batch]:
        """Decodes each batch in a worker and moves it to the device.

        Raises:
            DataError: an image cannot be decoded, or a worker was killed.
        """
        order = self._order.batches(number, first_step).tolist()
        loader = DataLoader(
            self._decoding,
            batch_sampler=order,
            num_workers=self._workers,
            collate_fn=_stack,
            pin_memory=self._device.type == "cuda",
        )
        for pixels, indices in _sound(loader):
            yield Batch(
                pixels.to(self._device, non_blocking=True),
                self._labels[indices].to(self._device),
                indices.to(self._device),
            )


# What a worker sends: torch would wrap an exception's text into its traceback, so an
# error travels as a value.
_Sample = tuple[np.ndarray | DataError, int]
_Loaded = tuple[Tensor, Tensor] | DataError


class _Decoding(TorchDataset[_Sample]):
    def __init__(self, split: Split, spec: PreprocessSpec) -> None:
        self._split, self._spec = split, spec

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> _Sample:
        try:
            return decode_sample(self._split.samples, index, self._spec), index
        except DataError as error:
            return error, index


def _stack(samples: list[_Sample]) -> _Loaded:
    pixels = []
    for sample, _ in samples:
        if isinstance(sample, DataError):
            return sample
        pixels.append(sample)
    indices = torch.tensor([index for _, index in samples])
    return torch.from_numpy(np.stack(pixels)), indices


def _sound(loader: Iterable[_Loaded]) -> Iterator[tuple[Tensor, Tensor]]:
    """What was loaded, up to the first error."""
    batches = iter(loader)
    while True:
        try:
            loaded = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:  # a worker is gone: out of memory, or of /dev/shm
            raise DataError(f"a process that decodes images ended: {error}") from error
        if isinstance(loaded, DataError):
            raise loaded
        yield loaded


def open_batches(
    split: Split,
    spec: PreprocessSpec,
    order: Order,
    device: torch.device,
    *,
    resident_mib: int,
) -> Batches:
    """Resident if all pixels take at most `resident_mib`, else streamed."""
    mib = len(split) * int(np.prod(spec.shape)) / (1 << 20)
    if mib <= resident_mib:
        return ResidentBatches(split.pixels(spec), split.labels, order, device)
    return StreamedBatches(split, spec, order, device)
