"""convolution → **the same**, as matrix products where those are faster.

oneDNN's kernels for the matrix units of Intel processors (AMX) fill a tile of sixteen
rows with neighboring pixels of one row of the output. Where such a row is short, most
of a tile is empty: with 4 pixels a convolution reaches 0.27 TFLOP/s on two cores, with
8 pixels 0.56, with 16 pixels 0.78, and its weights' gradient 0.1, 0.2 and 0.4. As one
product with the unfolded images, rows of all images are one matrix, and each of the
three has 0.5 to 0.7 (ONEDNN_VERBOSE=1 tells the times, here of ResNet-18). A filter of
one pixel needs no unfolding, and pays at any size. On other processors it may all lose,
so it is measured with the precision (`timing.py`). Unfolding takes nine times the
memory of the images, while it lasts.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

CHANNELS = 64  # in and out, from which filters of 3x3 are tried
# Pixels in a row of the output, up to which all is a product, or the weights' gradient.
FEW, MEDIUM = 4, 8
SIDE = 3  # of a filter that is not one pixel


def use_products(network: nn.Module, wanted: bool) -> None:
    """Let the convolutions that can be products of matrices be such, or torch's again.

    Only their class changes: names, weights and what they compute stay the same.
    """
    for module in network.modules():
        if can_be_product(module):
            module.__class__ = ProductConv2d if wanted else nn.Conv2d


def has_choice(network: nn.Module) -> bool:
    """Whether there is anything to choose."""
    return any(can_be_product(module) for module in network.modules())


def can_be_product(module: nn.Module) -> bool:
    """Whether it is a plain convolution of 1x1, or of 3x3 and many channels."""
    if type(module) not in (nn.Conv2d, ProductConv2d):
        return False
    assert isinstance(module, nn.Conv2d)  # noqa: S101 - for the type checker
    side = module.kernel_size[0]
    many = min(module.in_channels, module.out_channels) >= CHANNELS
    return (
        (side == 1 or (side == SIDE and many))
        and module.kernel_size == (side, side)
        and module.padding == (side // 2, side // 2)
        and module.padding_mode == "zeros"
        and module.stride in ((1, 1), (2, 2))
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.bias is None
    )


class ProductConv2d(nn.Conv2d):
    """A convolution that keeps or halves the size; without a gradient torch's own."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return super()._conv_forward(x, weight, bias)
        if self.kernel_size == (1, 1):
            return _pointwise(x, weight, self.stride[0])
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        output: Tensor = _Convolution.apply(x, weight, self.stride[0])
        return output


def _pointwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """[N, I, H, W] and [O, I, 1, 1] → [N, O, H', W'], channels last."""
    pixels = x[:, :, ::stride, ::stride].permute(0, 2, 3, 1)  # [N, H', W', I]
    return functional.linear(pixels, weight.flatten(1)).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """[N, I, H, W] and [O, I, 3, 3] → [N, O, H', W'], channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        narrow = weight.to(x.dtype)
        ctx.save_for_backward(x, narrow)
        ctx.dtype, ctx.stride = weight.dtype, stride
        if halved(x.shape[3], stride) <= FEW:
            return _product(x, filters_last(narrow), stride)
        return functional.conv2d(x, narrow, stride=stride, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (gradient,) = gradients  # [N, O, H', W']
        x, weight = ctx.saved_tensors
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = _input_gradient(x, weight, gradient, ctx.stride)
        for_weight = _weight_gradient(x, weight, gradient, ctx.stride)
        return for_x, for_weight.to(ctx.dtype), None


def _input_gradient(x: Tensor, weight: Tensor, gradient: Tensor, stride: int) -> Tensor:
    """Of the images: a convolution with turned filters, whose channels swap places."""
    if stride == 1 and gradient.shape[3] <= FEW:
        return _product(gradient, filters_last(weight.flip(2, 3).transpose(0, 1)), 1)
    return conv2d_input(x.shape, weight, gradient, stride=stride, padding=1)


def _weight_gradient(
    x: Tensor, weight: Tensor, gradient: Tensor, stride: int
) -> Tensor:
    """Of the weights, [O, I, 3, 3]."""
    outputs = weight.shape[0]
    if gradient.shape[3] > MEDIUM:
        return conv2d_weight(x, weight.shape, gradient, stride=stride, padding=1)
    rows = gradient.permute(1, 0, 2, 3).reshape(outputs, -1)  # [O, N H' W']
    product = rows @ unfold(x, stride)  # [O, 9 I]
    return product.view(outputs, SIDE, SIDE, -1).permute(0, 3, 1, 2)


def _product(x: Tensor, filters: Tensor, stride: int) -> Tensor:
    """[N, I, H, W] and [9 I, O] → [N, O, H', W'], channels last, and no view.

    What an autograd function returns as a view, no ReLU behind it may change in place.
    """
    height, width = (halved(side, stride) for side in x.shape[2:])
    shape = (len(x), filters.shape[1], height, width)
    outputs = torch.empty(
        shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    rows = outputs.permute(0, 2, 3, 1).view(-1, filters.shape[1])  # [N H' W', O]
    torch.mm(unfold(x, stride), filters, out=rows)
    return outputs


def filters_last(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] → [9 I, O], in the order of `unfold`."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1).T


def unfold(x: Tensor, stride: int) -> Tensor:
    """[N, I, H, W] → [N H' W', 9 I]: what outputs see, row by row, then channels."""
    n, channels, height, width = x.shape
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    images, down, across, channel = padded.stride()
    windows = padded.as_strided(
        (n, halved(height, stride), halved(width, stride), SIDE, SIDE, channels),
        (images, down * stride, across * stride, down, across, channel),
    )
    return windows.reshape(-1, SIDE * SIDE * channels)


def halved(side: int, stride: int) -> int:
    """Pixels of the output's side, which keeps all of a stride of 1."""
    return (side - 1) // stride + 1
