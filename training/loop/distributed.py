"""torchrun → **ranks**: several processes that train one network together.

`torchrun --nproc-per-node 2 -m cli train CONFIG` starts the processes and sets RANK,
WORLD_SIZE and LOCAL_RANK. Each takes its part of every batch, and gradients are
averaged: where nothing is random, two ranks take the same steps as one with the same
batch size. Augmentation and dropout draw other numbers on each rank. Three things see
the rank's own part only: batch norm, mixed images, and a selection, which keeps the
hardest of that part.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import ConfigError


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks to the terminal."""
        return self.rank == 0

    @property
    def gpu(self) -> str | None:
        """What they train on, such as `2 x NVIDIA H100`; None without a GPU."""
        if self.device.type != "cuda":
            return None
        return f"{self.world} x {torch.cuda.get_device_name(self.device)}"

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network, averaging gradients over all ranks if there are several."""
        if self.world == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids)

    def agree(self, value: float) -> float:
        """The first rank's value, on all ranks: measured times and scores differ."""
        if self.world == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(box, src=0)
        return box.item()

    def same(self, value: float) -> bool:
        """Whether all ranks have the same value: each gets the same answer."""
        if self.world == 1:
            return True
        box = torch.tensor([value, -value], dtype=torch.float64, device=self.device)
        distributed.all_reduce(box, op=distributed.ReduceOp.MAX)
        highest, lowest = box[0].item(), -box[1].item()
        return highest == lowest


def choose_device(wanted: str) -> torch.device:
    """`auto`: CUDA if it is there; else what was asked for.

    Raises:
        ConfigError: there is no such device; the message lists those that are there.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{n}" for n in range(found))] if found else []
    if wanted not in ("auto", "cpu", *cuda):
        raise ConfigError(
            f"device is {wanted!r}; torch finds {found} CUDA device(s), so that "
            f"allowed are {', '.join(('auto', 'cpu', *cuda))}"
        )
    if wanted == "auto":
        return torch.device("cuda" if found else "cpu")
    return torch.device(wanted)


def own_device(chosen: torch.device, local_rank: int) -> torch.device:
    """The GPU of a process, by its number among those of this machine."""
    if chosen.index is not None:
        raise ConfigError(
            f"device is '{chosen}', and torchrun has started several processes, each "
            "of which takes a GPU of its own: say cuda, and let CUDA_VISIBLE_DEVICES "
            "choose which there are"
        )
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise ConfigError(
            f"this is process {local_rank + 1} of its machine, and torch finds {found} "
            f"CUDA device(s) there: --nproc-per-node may be {found} at most"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def start_ranks(device: str = "auto") -> Iterator[Ranks]:
    """Join the other processes that torchrun started, if it did; leave at the end.

    Raises:
        ConfigError: the device is not there, or not one for each process.
    """
    chosen = choose_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if chosen.type == "cuda" and world > 1:
        chosen = own_device(chosen, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.index is not None:
        # What names no device means the current one: random numbers, pinned memory.
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Ranks(0, 1, chosen)
        return
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), world, chosen)
    finally:
        distributed.destroy_process_group()
