"""pixels → **views**: the same images mirrored and shifted, for a steadier answer.

Six views: as it is and mirrored, each also shifted by a pixel up-left and down-right.
The unshifted pair and the two shifted pairs count half each (Jordan, arXiv:2404.00498).
Made of pixels, before the graph, so that the graph that is served is the one measured.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

# Count of views → their weights, in the order of `views`.
WEIGHTS = {1: (1.0,), 2: (0.5, 0.5), 6: (0.25, 0.25, 0.125, 0.125, 0.125, 0.125)}

Pixels = NDArray[np.uint8]  # [N, H, W, C]
Logits = NDArray[np.float32]  # [N, K]


def views(pixels: Pixels, count: int) -> Iterator[tuple[float, Pixels]]:
    """1, 2 or 6 views of the images with their weights, which sum to 1."""
    return zip(WEIGHTS[count], _seen(pixels, count), strict=True)


def average_logits(
    run: Callable[[Pixels], Logits], pixels: Pixels, *, count: int
) -> Logits:
    """Weighted mean of the logits over the views; `run` is one forward pass."""
    return np.sum(
        [weight * run(view) for weight, view in views(pixels, count)],
        axis=0,
        dtype=np.float32,
    )


def _seen(pixels: Pixels, count: int) -> Iterator[Pixels]:
    if count == 1:
        yield pixels
        return
    yield from _mirrored(pixels)
    if count == 2:  # noqa: PLR2004
        return
    height, width = pixels.shape[1:3]
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    for offset in (0, 2):
        yield from _mirrored(
            padded[:, offset : offset + height, offset : offset + width]
        )


def _mirrored(pixels: Pixels) -> tuple[Pixels, Pixels]:
    return np.ascontiguousarray(pixels), np.ascontiguousarray(pixels[:, :, ::-1])
