"""device → **arithmetic**: normalization, autocast, memory that is not handed back.

bfloat16 pays on most convolutions and loses on depthwise ones, so it is measured
(`timing.py`) and not assumed.
"""

import ctypes
import os
import sys
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Literal, cast

import torch
from torch import Tensor, nn

Precision = Literal["fp32", "bf16"]

# mallopt(3): what glibc calls these two, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def autocast(
    device: torch.device, precision: Precision
) -> AbstractContextManager[None]:
    """Matrix products in bfloat16 inside the block, or everything as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def normalize(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """(images - mean) / std for each channel; float [N, C, H, W] in 0..1."""
    sides, device = tuple(images.shape[2:]), images.device
    moved = images - _by_channel(mean, sides, device)
    return moved.div_(_by_channel(std, sides, device))


@lru_cache(maxsize=8)
def _by_channel(
    values: tuple[float, ...], sides: tuple[int, int], device: torch.device
) -> Tensor:
    """float [1, C, H, W], channels last as images are.

    A value for each pixel, since loops over three channels are four times as slow as
    one over all of an image. Kept, because a copy to a GPU waits for all its work.
    """
    with torch.inference_mode(False):  # the first to ask may be a validation
        by_channel = torch.tensor(values, dtype=torch.float32, device=device)
        return (
            by_channel.view(1, -1, 1, 1)
            .expand(1, -1, *sides)
            .contiguous(memory_format=torch.channels_last)
        )


def to_images(pixels: Tensor) -> Tensor:
    """uint8 [N, H, W, C] → float [N, C, H, W] in 0..1, channels last in memory."""
    return (pixels.permute(0, 3, 1, 2).float() / 255).contiguous(
        memory_format=torch.channels_last
    )


def place(network: nn.Module, device: torch.device) -> None:
    """Move a network to the device, its filters channels last as the images are."""
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compiled(network: nn.Module, *, wanted: bool, device: torch.device) -> nn.Module:
    """The network as it is trained: its kernels fused on CUDA, where that is wanted.

    Its weights and its mode stay `network`'s own. The first step compiles: a minute for
    a hundred layers, and seconds once torch has them in its cache.
    """
    if not wanted or device.type != "cuda":
        return network
    return cast(nn.Module, torch.compile(network, dynamic=False))


def keep_memory() -> None:
    """Keep freed memory, in large pages: every step wants the same tensors again.

    By default glibc returns each large tensor to the system and pays page faults for
    the next one, and with pages of 4 KiB the processor looks up addresses all the time.
    Torch asks for large pages if its variable is there before the first tensor, so call
    this first. Does nothing on other systems.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """All randomness of one step, from its number: dropout and augmentation.

    Nothing random then needs to be stored for a run to go on where it was killed.
    """
    mixed = (seed * 1_000_003 + step) * 1_009 + rank
    # `torch.manual_seed` would also tell every device that there might be, and keep the
    # caller's stack for those that have not started: a hundredth of a small step.
    torch.default_generator.manual_seed(mixed % (1 << 63))
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed % (1 << 63))
    return torch.Generator(device).manual_seed((mixed + 1) % (1 << 63))
