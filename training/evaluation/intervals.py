"""trials, or images drawn anew → **intervals**: where a figure lies, in 95 of 100.

Plain shares have exact intervals (Clopper & Pearson 1934), also where nothing was
wrong; everything else is bootstrapped (Efron 1979), and calibration errors corrected.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from training.data.scenes import Scenes
from training.evaluation.metrics import Booleans, Integers, Metrics, Trials
from training.evaluation.reliability import GAPS, HONESTY
from training.evaluation.selective import clopper_pearson_upper

Intervals = dict[str, tuple[float, float]]

CONFIDENCE = 0.95
TAILS = (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE))  # percent
# Few rounds may lack a figure: where 3 images are positive, 5 % draw none of them.
MIN_DEFINED = 0.9
# Most of the NLL is of rare mistakes, and a draw has none where the images have none.
# Of three one draw in 20 has none; intervals of fewer missed the truth too often.
FEWEST_MISTAKES = 3
ROUNDING = 1e-9  # a width that float64 makes of equal figures, summed in another order

LOGGER = logging.getLogger(__name__)


def exact(trials: Trials) -> Intervals:
    """Clopper-Pearson intervals of shares of independent trials, where there were any.

    They hold at least what they say; those of 60 successes in 60 begin at 0.94.
    """
    return {
        name: clopper_pearson(int(np.count_nonzero(t)), len(t))
        for name, t in trials.items()
        if len(t)
    }


def clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """Both ends of the exact interval of a share seen as `successes` in `n`."""
    one_sided = (1 + CONFIDENCE) / 2
    low = 1 - clopper_pearson_upper(n - successes, n, confidence=one_sided)
    return low, clopper_pearson_upper(successes, n, confidence=one_sided)


def bootstrap(
    statistics: Callable[[Integers], Metrics],
    images: int,
    *,
    scenes: Scenes | None = None,
    rounds: int = 200,
    seed: int = 0,
) -> Intervals:
    """Percentile intervals: the images, or scenes [N], drawn again with replacement.

    `statistics` makes the figures of the images at some positions, int [N]. A figure
    that is undefined in some rounds has the interval of the others, if they are most.
    One without width is none: it would say that what the images cannot tell is sure.
    Those of calibration errors are `without_noise`, that of mAP `without_bias`.
    """
    LOGGER.info("95 %% intervals: %d images drawn anew, %d times", images, rounds)
    drawn: dict[str, list[float]] = {}
    for index in _draws(images, scenes, np.random.default_rng(seed), rounds=rounds):
        for name, value in statistics(index).items():
            drawn.setdefault(name, []).append(value)
    found = statistics(np.arange(images))
    intervals: Intervals = {}
    for name, values in drawn.items():
        if len(values) < MIN_DEFINED * rounds:
            continue
        low, high = (float(end) for end in np.percentile(values, TAILS))
        if name in GAPS:
            low, high = without_noise(found[name], low, high)
        elif name == "map":
            low, high = without_bias(found[name], values)
        if high - low > ROUNDING:
            intervals[name] = low, high
    return intervals


def without_noise(found: float, low: float, high: float) -> tuple[float, float]:
    """The interval of a calibration error, from the percentiles of its draws.

    A draw adds noise to what was found, as the images did to what is true, so that the
    percentiles lie too high by it twice. Noise adds to the squares of gaps (Kumar,
    Liang & Ma 2019, arXiv:1909.10155). On these the interval is the basic one (Davison
    & Hinkley 1997, 5.2), 2·found² - percentile²; it is widened to hold `found`.
    """
    lower, upper = (math.sqrt(max(0, 2 * found**2 - end**2)) for end in (high, low))
    return min(lower, found), min(max(upper, found), 1.0)


def without_bias(found: float, draws: Sequence[float]) -> tuple[float, float]:
    """The interval of mAP, from that of its draws: the percentiles less twice the bias.

    A positive that is drawn twice stands beside itself, which raises the average
    precision of a rare label; the mean of many labels hardly varies around a mean that
    is too high. What draws are above `found` on average, that is about as much above
    the truth (Efron & Tibshirani 1993, 10.2). The interval is widened to hold `found`.
    """
    bias = float(np.mean(draws)) - found
    low, high = (float(end) - 2 * bias for end in np.percentile(draws, TAILS))
    return min(max(low, 0.0), found), max(min(high, 1.0), found)


def without_the_unseen(
    intervals: Intervals, mistakes: Booleans, scenes: Scenes | None = None
) -> Intervals:
    """Those that so many mistakes, bool [N], can tell: of the honesty of scores none if
    fewer than three images, or scenes [N] where they are known, have one.
    """
    # each image by itself, or one with others of its scene
    seen = np.flatnonzero(mistakes) if scenes is None else scenes[mistakes]
    if len(np.unique(seen)) >= FEWEST_MISTAKES:
        return intervals
    return {name: ends for name, ends in intervals.items() if name not in HONESTY}


def _draws(
    images: int, scenes: Scenes | None, generator: np.random.Generator, *, rounds: int
) -> Iterator[Integers]:
    """Positions of images, int [N]; those of a scene come together or not at all."""
    if scenes is None:
        for _ in range(rounds):
            yield generator.integers(images, size=images)
        return
    order = np.argsort(scenes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(scenes[order])) + 1)
    for _ in range(rounds):
        chosen = generator.integers(len(members), size=len(members))
        yield np.concatenate([members[scene] for scene in chosen])
