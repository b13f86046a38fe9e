"""feature map of any size → **feature map of one size**, in few operations.

`nn.AdaptiveAvgPool2d` is right in torch, but where sizes do not divide it becomes a
gather of every window in ONNX. Averaging windows is linear and separable, so two small
constant matrices say the same: rows from the left, columns from the right.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def window_means(size: int, outputs: int) -> Tensor:
    """Matrix `[outputs, size]` whose row i averages the i-th adaptive window.

    Window i runs from floor(i * size / outputs) to ceil((i + 1) * size / outputs).
    """
    rows = []
    for i in range(outputs):
        first, last = i * size // outputs, -(-(i + 1) * size // outputs)
        share = 1 / (last - first)
        rows.append([share if first <= j < last else 0.0 for j in range(size)])
    return torch.tensor(rows)


class AdaptiveAveragePool(nn.Module):
    """Average over a grid of `size` x `size` windows; holds no parameters."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C, size, size]`."""
        height, width = x.shape[2:]
        if (height, width) == (self.size, self.size):
            return x
        if height % self.size == 0 and width % self.size == 0:
            return functional.avg_pool2d(x, (height // self.size, width // self.size))
        rows = window_means(height, self.size).to(x)  # [size, H]
        columns = window_means(width, self.size).to(x)  # [size, W]
        return rows @ x @ columns.T  # [N, C, size, size]


def global_average(x: Tensor) -> Tensor:
    """`[N, C, H, W]` → `[N, C]`: the mean of each channel."""
    return functional.adaptive_avg_pool2d(x, 1).flatten(1)
