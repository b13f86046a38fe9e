"""pixels → **varied images**: random changes for training, a whole batch at a time.

Axes: N images, H, W, C in, [N, C, H, W] out. Every function takes the generator that it
draws from, on the device of the images, so that a step's randomness is a function of
its seed and a run can be repeated.
"""

import math
from functools import lru_cache

import torch
from torch import Generator, Tensor

from training.augmentation.random_augment import random_augment
from training.augmentation.resample import resample
from training.configs.train_sections import AugmentConfig


def augment(
    pixels: Tensor,
    config: AugmentConfig,
    *,
    flipped: Tensor | None,
    generator: Generator,
) -> Tensor:
    """All changes but those that mix images, in the order that keeps bytes longest.

    Args:
        pixels: uint8 [N, H, W, C].
        flipped: bool [N], who is mirrored (`alternating_flip`), or None to draw it.

    Returns:
        float [N, C, H, W] in 0..1, channels last in memory.
    """
    shifts = _shifts(len(pixels), config.crop, generator) if config.crop else None
    if config.flip != "none" and flipped is None:
        flipped = _uniform(len(pixels), generator) < 0.5  # noqa: PLR2004
    if shifts is not None:
        pixels = reflect_crop(pixels, shifts, mirrored=flipped)
    elif flipped is not None:
        pixels = torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(2), pixels)
    images = pixels.permute(0, 3, 1, 2).float().div_(255)  # [N, C, H, W]
    if config.resized_crop is not None:
        images = resized_crop(images, smallest=config.resized_crop, generator=generator)
    if config.rotate or config.zoom or config.shift:
        images = affine(images, config, generator=generator)
    if config.random_augment is not None:
        count, magnitude = config.random_augment
        images = random_augment(
            images, count=count, magnitude=magnitude, generator=generator
        )
    return images.contiguous(memory_format=torch.channels_last)


def alternating_flip(indices: Tensor, *, epoch: int, seed: int, total: int) -> Tensor:
    """Mirror each image in every other epoch, bool [N]; who begins is drawn once.

    Two epochs show every image both ways, where coins would show half of them twice the
    same way. Jordan, arXiv:2404.00498.
    """
    return (_mirrored_first(seed, total, indices.device)[indices] + epoch) % 2 == 1


@lru_cache(maxsize=1)
def _mirrored_first(seed: int, total: int, device: torch.device) -> Tensor:
    """A coin for each image, int64 [total]; kept, for every step asks for them."""
    coins = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (total,), generator=coins).to(device)


def _shifts(n: int, most: int, generator: Generator) -> Tensor:
    """Up to `most` pixels down and across, int64 [2, N, 1]."""
    return torch.randint(
        -most, most + 1, (2, n, 1), generator=generator, device=generator.device
    )


def reflect_crop(pixels: Tensor, shifts: Tensor, *, mirrored: Tensor | None) -> Tensor:
    """Shift each image, whose mirror image fills the gap, then mirror some from left
    to right.

    Each pixel is fetched once, through an index: no padded copy is made, and who is
    mirrored reads its columns backwards. `index_select` copies pixels three times as
    fast as an index of rows and one of columns.

    Args:
        pixels: uint8 [N, H, W, C].
        shifts: down and across, less than H and W, int64 [2, N, 1].
        mirrored: bool [N].

    Returns:
        uint8 [N, H, W, C].
    """
    n, height, width, channels = pixels.shape
    device = pixels.device
    rows = _reflected(torch.arange(height, device=device) + shifts[0], height)  # [N, H]
    columns = _reflected(torch.arange(width, device=device) + shifts[1], width)
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows = rows + height * torch.arange(n, device=device)[:, None]  # of all images
    places = width * rows[:, :, None] + columns[:, None, :]  # [N, H, W]
    fetched = pixels.reshape(-1, channels).index_select(0, places.view(-1))
    return fetched.view(pixels.shape)


def _reflected(index: Tensor, size: int) -> Tensor:
    """-1 → 1 and size → size - 2: the border pixel itself is not repeated."""
    index = index.abs()
    return torch.where(index >= size, 2 * size - 2 - index, index)


def cutout(images: Tensor, *, side: int, fill: Tensor, generator: Generator) -> Tensor:
    """Cover a random square of `side` pixels with `fill` [C].

    DeVries and Taylor, arXiv:1708.04552; but squares lie wholly inside the image, where
    the paper's may reach over its border.
    """
    n, _, height, width = images.shape
    top = _integers(height - side + 1, n, generator)
    left = _integers(width - side + 1, n, generator)
    inside = _band(height, top, side)[:, :, None] & _band(width, left, side)[:, None]
    return torch.where(inside[:, None], fill.view(1, -1, 1, 1), images)


def _band(size: int, first: Tensor, length: int) -> Tensor:
    """Which of `size` positions lie in [first, first + length), bool [N, size]."""
    position = torch.arange(size, device=first.device)
    return (position >= first[:, None]) & (position < first[:, None] + length)


def affine(images: Tensor, config: AugmentConfig, *, generator: Generator) -> Tensor:
    """Turn by up to `rotate` degrees, scale by 1 ± `zoom`, shift by up to `shift`.

    Float [N, C, H, W]; `shift` is a part of the side. What comes in from outside is the
    color at the border.
    """
    n = len(images)
    angle = math.radians(config.rotate) * _symmetric(n, generator)
    scale = 1 + config.zoom * _symmetric(n, generator)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    across, down = (2 * config.shift * _symmetric(n, generator) for _ in range(2))
    return resample(images, [cosine, -sine, across, sine, cosine, down])


def resized_crop(images: Tensor, *, smallest: float, generator: Generator) -> Tensor:
    """Cut out a random part and scale it back to H x W (Szegedy et al., 2014).

    The part has `smallest` to 1 of the area and an aspect of 3:4 to 4:3; one that would
    be longer than the image ends at its border, so of areas over 3/4 some is lost.
    """
    n = len(images)
    area = smallest + (1 - smallest) * _uniform(n, generator)
    stretch = (math.log(4 / 3) / 2 * _symmetric(n, generator)).exp()
    wide, high = ((area.sqrt() * s).clamp(max=1) for s in (stretch, 1 / stretch))
    across = (1 - wide) * _symmetric(n, generator)
    down = (1 - high) * _symmetric(n, generator)
    zero = torch.zeros_like(wide)
    return resample(images, [wide, zero, across, zero, high, down])


def mix(
    images: Tensor, truth: Tensor, config: AugmentConfig, *, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix (one coin a batch when both are on) of images and their truth.

    Each image is blended with another one of the batch (Zhang et al., arXiv:1710.09412)
    or gets a box of it, and its truth is blended by the same share. So the network
    learns to be as sure as there is evidence, also between the images that it has seen.

    Args:
        images: float [N, C, H, W].
        truth: float [N, K], shares of the labels.
    """
    if not config.mixup and not config.cutmix:
        return images, truth
    coin = torch.rand((), generator=generator, device=images.device).item()
    use_cutmix = bool(config.cutmix) and (not config.mixup or coin < 0.5)  # noqa: PLR2004
    alpha = config.cutmix if use_cutmix else config.mixup
    share = beta(alpha, generator)
    others = torch.randperm(len(images), generator=generator, device=images.device)
    if use_cutmix:
        images, share = _paste(images, images[others], share, generator)
    else:
        images = share * images + (1 - share) * images[others]
    return images, share * truth + (1 - share) * truth[others]


def _paste(
    images: Tensor, others: Tensor, share: float, generator: Generator
) -> tuple[Tensor, float]:
    """A box of the others into the images (Yun et al., arXiv:1905.04899).

    It lies wholly inside, so that its area is the share that was drawn, to a pixel; the
    paper draws its middle and cuts off what is outside.
    """
    height, width = images.shape[2:]
    part = math.sqrt(1 - share)
    high, wide = round(part * height), round(part * width)
    top = int(_integers(height - high + 1, 1, generator))
    left = int(_integers(width - wide + 1, 1, generator))
    mixed = images.clone()
    box = (..., slice(top, top + high), slice(left, left + wide))
    mixed[box] = others[box]
    return mixed, 1 - high * wide / (height * width)


def beta(alpha: float, generator: Generator) -> float:
    """A draw from Beta(alpha, alpha): the part of the first of two Gamma(alpha) draws.

    Each is Gamma(alpha + 1) times a uniform to the power 1/alpha (Marsaglia and Tsang,
    2000). In logarithms, since those of small alphas underflow. `torch.distributions`
    has both and takes no generator.
    """
    device = generator.device
    shapes = torch.full((2,), alpha + 1, dtype=torch.float64, device=device)
    uniform = torch.rand(2, generator=generator, dtype=torch.float64, device=device)
    gamma = torch._standard_gamma(shapes, generator=generator)
    logs = gamma.log() + uniform.log() / alpha
    return torch.sigmoid(logs[0] - logs[1]).item()


def _uniform(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator, device=generator.device)


def _symmetric(n: int, generator: Generator) -> Tensor:
    """Uniform in -1..1, [N]."""
    return 2 * _uniform(n, generator) - 1


def _integers(below: int, n: int, generator: Generator) -> Tensor:
    return torch.randint(
        0, max(below, 1), (n,), generator=generator, device=generator.device
    )
