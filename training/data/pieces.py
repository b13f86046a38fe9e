"""pixels → **pieces**: so many images as run well at once."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [N, H, W, C]


def in_pieces(pixels: Pixels, *, size: int) -> list[Pixels]:
    """Views of up to `size` images each, in order; the last one may be smaller."""
    return [pixels[i : i + size] for i in range(0, len(pixels), size)]
