"""trials, or images drawn anew → **intervals**: where a figure lies, in 95 of 100.

Plain shares have exact intervals (Clopper & Pearson 1934), also where nothing was
wrong, and what two of them make, or ranks, has one in closed form; everything else is
bootstrapped (Efron 1979), and what draws make larger or smaller is corrected.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.special import expit, logit  # type: ignore[import-untyped]
from scipy.stats import norm, rankdata  # type: ignore[import-untyped]

from training.data.scenes import Scenes
from training.evaluation.metrics import Booleans, Floats, Integers, Metrics, Trials
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
# Of so few, drawn anew, most draws look alike: of five the truth was missed in 20 %.
FEWEST_SCENES = 20
BIASED = {"map", "macro_f1"}  # by rare labels; see `without_bias`
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


def of_yes_and_no(positive: Floats, decided: Booleans, truth: Booleans) -> Intervals:
    """Those of ROC-AUC and balanced accuracy of independent images, [N] each.

    Drawn anew, images among which hardly one is wrong would call both more certain than
    they are: the intervals held the truth in 74 to 90 of 100 cases.
    """
    n = np.count_nonzero(truth)
    if not 0 < n < len(truth):
        return {}
    found = {"balanced_accuracy": of_mean(decided[truth], ~decided[~truth])}
    ends = delong(positive[truth], positive[~truth])
    return found if ends is None else found | {"roc_auc": ends}


def of_mean(first: Booleans, second: Booleans) -> tuple[float, float]:
    """The interval of the mean of two shares, from theirs: MOVER.

    Zou & Donner, "Construction of confidence limits about effect measures: a general
    approach", 2008: distances to the ends add up as those of independent errors do.
    """
    shares = first.mean(), second.mean()
    both = [clopper_pearson(int(np.count_nonzero(t)), len(t)) for t in (first, second)]
    below, above = (
        math.hypot(
            *(share - ends[side] for share, ends in zip(shares, both, strict=True))
        )
        for side in (0, 1)
    )
    mean = float(sum(shares)) / 2
    return max(0.0, mean - below / 2), min(1.0, mean + above / 2)


def delong(positives: Floats, negatives: Floats) -> tuple[float, float] | None:
    """The interval of ROC-AUC, from the scores of both sides, [P] and [N].

    DeLong, DeLong & Clarke-Pearson, "Comparing the areas under two or more correlated
    receiver operating characteristic curves", 1988, on the scale of logits, where it is
    nearer to symmetric (Qin & Hotilovac 2008). None where there is no variance to see:
    a side has one image, or no pair is in the wrong order.
    """
    p, n = len(positives), len(negatives)
    ranks = rankdata(np.concatenate([positives, negatives]))
    under = (ranks[:p] - rankdata(positives)) / n  # share of negatives below each
    over = 1 - (ranks[p:] - rankdata(negatives)) / p  # share of positives above each
    area = float(under.mean())
    if min(p, n) < 2 or not 0 < area < 1:  # noqa: PLR2004 - a variance needs two
        return None
    error = math.sqrt(under.var(ddof=1) / p + over.var(ddof=1) / n)
    reach = float(norm.ppf((1 + CONFIDENCE) / 2)) * error / (area * (1 - area))
    low, high = (float(expit(logit(area) + side * reach)) for side in (-1, 1))
    return (low, high) if error else None


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
    Those of calibration errors are `without_noise`, those of mAP and macro F1
    `without_bias`. Of too few scenes there are none.
    """
    if scenes is not None and len(np.unique(scenes)) < FEWEST_SCENES:
        LOGGER.info("no 95 %% intervals: fewer than %d scenes", FEWEST_SCENES)
        return {}
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
        elif name in BIASED:
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
    """That of mAP or macro F1, from their draws: the percentiles less twice the bias.

    A positive that is drawn twice stands beside itself, which raises the average
    precision of a rare label; the mean of many labels hardly varies around a mean that
    is too high. F1 falls in the same way, where a draw has fewer positives still. What
    draws are above `found` on average, that is about as much above the truth (Efron &
    Tibshirani 1993, 10.2). The interval is widened to hold `found`.
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
