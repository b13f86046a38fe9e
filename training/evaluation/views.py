"""pixels → **views**: the same images mirrored and shifted, for a steadier answer.

Six views: as it is and mirrored, each also shifted by a pixel up-left and down-right.
The unshifted pair and the two shifted pairs count half each (Jordan, arXiv:2404.00498).
Made of pixels, before the graph, so that the graph that is served is the one measured.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [N, H, W, C]
Logits = NDArray[np.float32]  # [N, K]


def views(pixels: Pixels, count: int) -> Iterator[tuple[float, Pixels]]:
    """1, 2 or 6 views of the images with their weights, which sum to 1."""
    if count == 1:
        yield 1.0, pixels
        return
    if count == 2:  # noqa: PLR2004
        for view in _mirrored(pixels):
            yield 0.5, view
        return
    height, width = pixels.shape[1:3]
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    for view in _mirrored(pixels):
        yield 0.25, view
    for offset in (0, 2):
        shifted = padded[:, offset : offset + height, offset : offset + width]
        for view in _mirrored(shifted):
            yield 0.125, view


def average_logits(
    run: Callable[[Pixels], Logits], pixels: Pixels, *, count: int
) -> Logits:
    """Weighted mean of the logits over the views; `run` is one forward pass."""
    return np.sum(
        [weight * run(view) for weight, view in views(pixels, count)],
        axis=0,
        dtype=np.float32,
    )


def _mirrored(pixels: Pixels) -> tuple[Pixels, Pixels]:
    return np.ascontiguousarray(pixels), np.ascontiguousarray(pixels[:, :, ::-1])
