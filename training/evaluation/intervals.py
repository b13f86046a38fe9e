"""images drawn again → **intervals**: between which values a figure may lie."""

import logging
from collections.abc import Callable

import numpy as np

from training.evaluation.metrics import Integers, Metrics

ENDS = (2.5, 97.5)  # percentiles that leave 95 % between them
LOGGER = logging.getLogger(__name__)


def bootstrap(
    statistics: Callable[[Integers], Metrics],
    images: int,
    *,
    rounds: int = 200,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals (Efron 1979): the images drawn again with replacement.

    `statistics` makes the figures of the images at some positions, int [N]. The
    interval of an ECE lies a little high, because ECE grows with noise.
    """
    LOGGER.info("95 %% intervals: %d images drawn anew, %d times", images, rounds)
    generator = np.random.default_rng(seed)
    drawn = [statistics(generator.integers(images, size=images)) for _ in range(rounds)]
    shared = set.intersection(*(set(values) for values in drawn))
    ends = {n: np.percentile([values[n] for values in drawn], ENDS) for n in shared}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}
