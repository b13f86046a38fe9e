"""images → **turned, leaned, scaled and shifted images**: an affine map of each."""

import torch
from torch import Tensor
from torch.nn import functional


def resample(images: Tensor, rows: list[Tensor]) -> Tensor:
    """Fetch each pixel from where its image's map leads, from the middle on.

    Args:
        images: float [N, C, H, W].
        rows: the six entries of a 2 x 3 matrix, each [N]: across from (across, down,
            1), down from the same. Lengths are pixels, shifts are halves of a side.

    What comes in from outside is the color at the border.
    """
    height, width = images.shape[2:]
    # The grid runs from -1 to 1 on both axes, whatever their lengths.
    aspect = height / width
    scaled = [rows[0], rows[1] * aspect, rows[2], rows[3] / aspect, rows[4], rows[5]]
    matrices = torch.stack(scaled, 1).view(-1, 2, 3)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
