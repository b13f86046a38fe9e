"""progress → **factor**: what the peak learning rate is multiplied with.

Pure functions of progress, the part of training that is done (0 to 1), so that a run
that goes on after a kill, or whose length was planned from a time budget, needs no
state to know its learning rate.
"""

import math
from typing import Literal

Shape = Literal["linear", "cosine", "constant"]


def factor(
    progress: float,
    *,
    shape: Shape,
    warmup: float = 0.0,
    start: float = 0.0,
    final: float = 0.0,
) -> float:
    """Rise in a line from `start` to 1 until `warmup`, then go to `final`.

    `linear` with a warm-up is the triangle of one-cycle training (Smith and Topin,
    arXiv:1708.07120); `cosine` is Loshchilov and Hutter's (arXiv:1608.03983).
    """
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    if shape == "constant":
        return 1.0
    left = 1 - min(
        (progress - warmup) / (1 - warmup), 1.0
    )  # 1 at the peak, 0 at the end
    if shape == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return final + (1 - final) * left


def until(progress: float, *, end: float) -> float:
    """Fall in a line from 1 to 0 at `end`, and stay: for weights that freeze early."""
    return max(1 - progress / end, 0.0)


def image_size(progress: float, sizes: tuple[tuple[float, int], ...]) -> int:
    """The side of the images at this point: rows of (until which progress, side)."""
    return next((side for end, side in sizes if progress < end), sizes[-1][1])
