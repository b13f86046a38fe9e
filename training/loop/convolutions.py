"""deep convolution → **the same**, with its weights' gradient as one matrix product.

Where images have become small and channels many, oneDNN's own kernel for that gradient
leaves an Intel processor's matrix units (AMX) idle: 0.15 to 0.5 TFLOP/s on two cores,
where the product of the output's gradient with the unfolded images has 0.5 to 1.0. On
other processors it may lose, so it is measured with the precision (`budget.py`).
Unfolding takes nine times the memory of the images, while it lasts.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

DEEP = 256  # channels in, from which it is tried
SIDE = 3  # of a filter


def use_products(network: nn.Module, wanted: bool) -> None:
    """Let the deep convolutions have their gradients by products, or by torch again.

    Only their class changes: names, weights and what they compute stay the same.
    """
    for module in network.modules():
        if is_deep(module):
            module.__class__ = ProductConv2d if wanted else nn.Conv2d


def has_deep(network: nn.Module) -> bool:
    """Whether there is anything to choose."""
    return any(is_deep(module) for module in network.modules())


def is_deep(module: nn.Module) -> bool:
    """Whether it is a plain 3x3 convolution that keeps the size, of many channels."""
    return (
        type(module) in (nn.Conv2d, ProductConv2d)
        and isinstance(module, nn.Conv2d)
        and module.in_channels >= DEEP
        and module.kernel_size == (SIDE, SIDE)
        and module.stride == module.dilation == module.padding == (1, 1)
        and module.groups == 1
        and module.bias is None
    )


class ProductConv2d(nn.Conv2d):
    """A convolution of 3x3 that keeps the size; without a gradient torch's own."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return super()._conv_forward(x, weight, bias)
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        output: Tensor = _Convolution.apply(x, weight)
        return output


class _Convolution(torch.autograd.Function):
    """[N, I, H, W] and [O, I, 3, 3] → [N, O, H, W]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        narrow = weight.to(x.dtype)
        ctx.save_for_backward(x, narrow)
        ctx.dtype = weight.dtype
        return functional.conv2d(x, narrow, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:
        (gradient,) = gradients  # [N, O, H, W]
        x, weight = ctx.saved_tensors
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = conv2d_input(x.shape, weight, gradient, padding=1)
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, weight.shape[0])  # [N H W, O]
        product = rows.T @ unfold(x)  # [O, 9 I]
        shape = (weight.shape[0], SIDE, SIDE, weight.shape[1])
        for_weight = product.view(shape).permute(0, 3, 1, 2)  # [O, I, 3, 3]
        return for_x, for_weight.to(ctx.dtype)


def unfold(x: Tensor) -> Tensor:
    """[N, I, H, W] → [N H W, 9 I]: what each output sees, row by row, then channels."""
    n, channels, height, width = x.shape
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    across = padded.stride()
    windows = padded.as_strided(
        (n, height, width, SIDE, SIDE, channels),
        (*across[:3], *across[1:3], across[3]),
    )
    return windows.reshape(n * height * width, SIDE * SIDE * channels)
