"""scores + correctness → **when to abstain**: fewer answers, fewer wrong ones.

Selective classification (Geifman & El-Yaniv 2017, arXiv:1705.08500): answer only when
the best score reaches a threshold. Coverage is the share of images answered, risk the
share of those answers that are wrong. Label smoothing spoils the ranking
(arXiv:2403.14715), so a network that may abstain is better trained without.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta  # type: ignore[import-untyped]

from training.data.scenes import Scenes
from training.evaluation.metrics import Booleans, Floats, Integers

STEPS = 20  # coverages tested: more would find little more, and fail more often


@dataclass(frozen=True)
class RiskCoverage:
    """One point an attainable threshold, from the strictest to none at all."""

    thresholds: Floats  # [P], descending
    coverage: Floats  # [P], ascending, the last is 1
    risk: Floats  # [P]

    @property
    def aurc(self) -> float:
        """Area under the curve: the error rate e where scores know nothing.

        Where they put all mistakes last it is e + (1 - e) log(1 - e), about e² / 2
        (Geifman, Uziel & El-Yaniv 2019, arXiv:1805.08206).
        """
        widths = np.diff(self.coverage, prepend=0.0)
        return float(np.sum(widths * self.risk))


def risk_coverage(score: Floats, correct: Booleans) -> RiskCoverage:
    """The whole curve; images with the same score are answered together."""
    order = np.argsort(-score, kind="stable")
    ranked, wrong = score[order], np.cumsum(~correct[order])
    last = np.flatnonzero(np.diff(ranked, append=-np.inf))  # last image of each score
    answered = last + 1
    return RiskCoverage(ranked[last], answered / len(score), wrong[last] / answered)


def clopper_pearson_upper(wrong: float, n: float, *, confidence: float = 0.95) -> float:
    """One-sided upper bound of a rate seen as `wrong` in `n` (exact, 1934)."""
    return 1.0 if wrong >= n else float(beta.ppf(confidence, wrong + 1, n - wrong))


def evidence(images: int, scenes: Scenes | None = None) -> float:
    """How many independent images so many are worth; `scenes` [N] are those of each.

    Photos of a scene may all be right or wrong together: a scene counts as one image.
    Where scenes have m₁, m₂, … images of their own, they are worth (Σm)² / Σm² (Kish,
    1965), which is fewer: most may be of one scene. This assumes that large scenes are
    as often wrong as small ones; where they are the harder ones it is worth less.
    """
    if scenes is None:
        return images
    _, sizes = np.unique(scenes, return_counts=True)
    return float(images**2 / np.sum(sizes**2))


def risk_upper(
    correct: Booleans, scenes: Scenes | None = None, *, confidence: float = 0.95
) -> float:
    """One-sided upper bound of the risk of answers [N]; 1 where there are none."""
    if not len(correct):
        return 1.0
    n = evidence(len(correct), scenes)
    return clopper_pearson_upper(float(np.mean(~correct)) * n, n, confidence=confidence)


@dataclass(frozen=True)
class AbstainRule:
    """Answer from `threshold` on; `risk_bound` holds with the confidence asked for."""

    threshold: float
    coverage: float
    risk: float
    risk_bound: float


def abstain_rule(
    score: Floats,
    correct: Booleans,
    *,
    risk: float,
    confidence: float = 0.95,
    scenes: Scenes | None = None,
) -> AbstainRule | None:
    """The most coverage that a sequence of tests grants a risk of at most `risk`.

    Fixed-sequence testing (Angelopoulos et al. 2021, arXiv:2110.01052): the coverages
    are fixed beforehand and tested from the strictest on, each by its Clopper-Pearson
    bound, up to the first that fails. So the risk of all thresholds that pass is within
    `risk` with the confidence asked for, and the laxest may be taken; the best of all
    thresholds would be one that was lucky. None when not even the first one passes.

    Score, correctness and scenes are [N]; with scenes the images are worth as many as
    `evidence` says.
    """
    curve = risk_coverage(score, correct)
    answered = np.rint(curve.coverage * len(score)).astype(int)
    rule = None
    for at in _sequence(answered):
        some = score >= curve.thresholds[at]  # bool [N]
        known = None if scenes is None else scenes[some]
        n = evidence(int(answered[at]), known)
        if clopper_pearson_upper(0, n, confidence=confidence) > risk:
            continue  # too few to promise anything, even without a mistake
        bound = risk_upper(correct[some], known, confidence=confidence)
        if bound > risk:
            break
        rule = _rule(curve, at, bound)
    return rule


def _sequence(answered: Integers) -> list[int]:
    """Positions of STEPS even coverages in `answered` [P], the strictest first.

    Where a threshold cannot part equal scores, the next stricter one stands in.
    """
    wanted = answered[-1] * np.arange(1, STEPS + 1) // STEPS
    at = np.unique(np.searchsorted(answered, wanted, side="right")) - 1
    return [int(position) for position in at if position >= 0]


def _rule(curve: RiskCoverage, at: int, bound: float) -> AbstainRule:
    refused = curve.thresholds[at + 1] if at + 1 < len(curve.thresholds) else 0.0
    return AbstainRule(
        # Halfway to the first refused score: rounding must not turn an answer away. In
        # float64: between two neighbors float32 has nothing, and would take either.
        threshold=(float(curve.thresholds[at]) + float(refused)) / 2,
        coverage=float(curve.coverage[at]),
        risk=float(curve.risk[at]),
        risk_bound=bound,
    )
