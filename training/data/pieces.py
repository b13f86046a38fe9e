"""pixels → **pieces**: so many images as run well at once."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from classifier.manifest import PreprocessSpec

Value = TypeVar("Value", bound=np.generic)

# So many of 32 x 32 fill a GPU even with a small network. Larger images are fewer, as
# many pixels: 500 of 288 x 288 are 4 GB for one activation of EfficientNet-Lite0.
MOST_IMAGES = 500
MOST_PIXELS = MOST_IMAGES * 32 * 32


def in_pieces(images: NDArray[Value], *, size: int) -> list[NDArray[Value]]:
    """Views of up to `size` images each, or of their positions, in order; the last one
    may be smaller.
    """
    return [images[i : i + size] for i in range(0, len(images), size)]


def images_at_once(spec: PreprocessSpec, *, batch_size: int) -> int:
    """How many images to run forward together.

    Of large ones as many as are trained together: they are known to fit, and cost what
    a time budget has measured of a training step.
    """
    small_enough = MOST_PIXELS // (spec.height * spec.width)
    return min(MOST_IMAGES, max(batch_size, small_enough))
