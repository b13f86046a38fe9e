"""images → **recolored and bent images**: RandAugment by hand, on whole batches.

Cubuk et al., arXiv:1909.13719: a few operations drawn from a list, all with the same
magnitude. Each image draws its own operations; an operation is computed for the images
that drew it. The list is the paper's without autocontrast and equalize, which have no
strength, and without the two shifts, which a config has as `shift`.

As in torchvision, and in timm where it is told to increase, magnitude 0 does nothing,
and more does more, to colors with either sign; but timm's posterize keeps 4 bits at 0
and none at 10 (here 8 and 4), and torchvision's solarize turns pure white black at 0.
The authors' code has a factor of 0.1 at magnitude 0 there and 1.9 at 10; its posterize
and solarize are strongest at 0. The scale ends at 10 like theirs and timm's;
torchvision's ends at 30.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

from training.augmentation.resample import resample

MAX_MAGNITUDE = 10
GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma

# Images [M, C, H, W] in 0..1 and strengths [M, 1, 1, 1] in -1..1 → images.
Operation = Callable[[Tensor, Tensor], Tensor]


def random_augment(
    images: Tensor, *, count: int, magnitude: float, generator: Generator
) -> Tensor:
    """Apply `count` random operations to each image.

    Args:
        images: float [N, C, H, W] in 0..1.
        magnitude: 0 to 10; the sign is drawn for each image.
    """
    n = len(images)
    for _ in range(count):
        drawn = torch.randint(
            0, len(OPERATIONS), (n,), generator=generator, device=generator.device
        )
        signs = torch.randint(
            0, 2, (n, 1, 1, 1), generator=generator, device=generator.device
        )
        strength = (2 * signs - 1) * (magnitude / MAX_MAGNITUDE)
        changed = images.clone()
        for number, operation in enumerate(OPERATIONS):
            chosen = (drawn == number).nonzero().flatten()
            if len(chosen):
                changed[chosen] = operation(images[chosen], strength[chosen])
        images = changed.clamp(0, 1)
    return images


def unchanged(images: Tensor, strength: Tensor) -> Tensor:
    """Leave it as it is."""
    return images


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Darker or lighter by up to nine tenths."""
    return images * (1 + 0.9 * strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Towards or away from the image's mean gray."""
    mean = _gray(images).mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + 0.9 * strength)


def saturation(images: Tensor, strength: Tensor) -> Tensor:
    """Towards or away from gray; nothing happens to one-channel images."""
    gray = _gray(images)
    return gray + (images - gray) * (1 + 0.9 * strength)


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Keep 8 down to 4 bits of each value."""
    levels = 2 ** (8 - 4 * strength.abs()).round()
    return (images * 255 / (256 / levels)).floor() * (256 / levels) / 255


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Invert what reaches a threshold: from 256, which no byte is, down to 0."""
    threshold = (1 - strength.abs()) * 256 / 255
    return torch.where(images >= threshold, 1 - images, images)


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Towards or away from a blurred copy, in which the middle of 3x3 counts fivefold.

    As in Pillow, except for the pixels at the border, which Pillow leaves as they are.
    """
    mean = functional.avg_pool2d(
        functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1
    )
    blurred = (9 * mean + 4 * images) / 13
    return blurred + (images - blurred) * (1 + 0.9 * strength)


def rotate(images: Tensor, strength: Tensor) -> Tensor:
    """By up to 30 degrees."""
    angle = math.radians(30) * strength.flatten()
    zero = torch.zeros_like(angle)
    rows = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero]
    return resample(images, rows)


def shear_across(images: Tensor, strength: Tensor) -> Tensor:
    """Lean to a side by up to 0.3."""
    lean = 0.3 * strength.flatten()
    one, zero = torch.ones_like(lean), torch.zeros_like(lean)
    return resample(images, [one, lean, zero, zero, one, zero])


def shear_down(images: Tensor, strength: Tensor) -> Tensor:
    """Lean downwards by up to 0.3."""
    lean = 0.3 * strength.flatten()
    one, zero = torch.ones_like(lean), torch.zeros_like(lean)
    return resample(images, [one, zero, zero, lean, one, zero])


def _gray(images: Tensor) -> Tensor:
    """[N, C, H, W] → [N, 1, H, W]."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor(GRAY).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


OPERATIONS: tuple[Operation, ...] = (
    unchanged,
    brightness,
    contrast,
    saturation,
    posterize,
    solarize,
    sharpness,
    rotate,
    shear_across,
    shear_down,
)
