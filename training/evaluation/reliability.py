"""scores + correctness → **reliability**: does 0.8 mean right in 8 cases of 10?

`score` float [N] is what was answered with, `correct` bool [N] whether it was right.
For a sigmoid the pair is (probability of yes, truth), so both ends of the scale are
looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import log_loss  # type: ignore[import-untyped]

from training.evaluation.metrics import Booleans, Floats, Integers, Metrics, one_hot

ENDS = (2.5, 97.5)  # percentiles that leave 95 % between them
BINS = 15  # as in Guo et al. 2017, arXiv:1706.04599


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram."""

    low: float
    high: float
    n: int
    mean_score: float
    share_correct: float


def equal_width_bins(score: Floats, correct: Booleans, bins: int = BINS) -> list[Bin]:
    """Bins of equal width over 0…1; the empty ones are left out."""
    edges = np.linspace(0, 1, bins + 1)
    # side="left" puts a score that lies on an edge into the bin under it, as the paper.
    index = np.clip(np.searchsorted(edges, score, side="left") - 1, 0, bins - 1)
    return [
        _bin(score[index == b], correct[index == b], edges[b], edges[b + 1])
        for b in np.unique(index)
    ]


def equal_mass_bins(score: Floats, correct: Booleans, bins: int = BINS) -> list[Bin]:
    """Bins of (nearly) equal numbers of images, as Nixon et al., arXiv:1904.01685."""
    order = np.argsort(score, kind="stable")
    return [
        _bin(score[part], correct[part], score[part[0]], score[part[-1]])
        for part in np.array_split(order, bins)
        if len(part)
    ]


def _bin(score: Floats, correct: Booleans, low: float, high: float) -> Bin:
    mean, share = float(score.mean()), float(correct.mean())
    return Bin(float(low), float(high), len(score), mean, share)


def expected_calibration_error(bins: list[Bin]) -> float:
    """Σ n_b/N · |share correct in b - mean score in b|."""
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.share_correct - b.mean_score) for b in bins) / total


def brier_multiclass(probabilities: Floats, truth: Integers) -> float:
    """Mean over images of Σ_k (p_k - y_k)², 0 to 2 (Brier 1950)."""
    wanted = one_hot(truth, probabilities.shape[1])
    return float(np.mean(np.sum((probabilities - wanted) ** 2, axis=1)))


def softmax_reliability(probabilities: Floats, truth: Integers) -> Metrics:
    """ECE, adaptive ECE, NLL (nats) and Brier of top-1 answers with softmax scores."""
    score = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    chosen = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return {
        "ece": expected_calibration_error(equal_width_bins(score, correct)),
        "adaptive_ece": expected_calibration_error(equal_mass_bins(score, correct)),
        # A score that rounds to 0 in float32 would make the mean infinite.
        "nll": float(-np.log(np.maximum(chosen, 1e-12)).mean()),
        "brier": brier_multiclass(probabilities, truth),
    }


def sigmoid_reliability(probabilities: Floats, truth: Booleans) -> Metrics:
    """The same for yes/no scores of any shape, each score an answer of its own."""
    score, yes = probabilities.ravel().astype(np.float64), truth.ravel()
    clipped = np.clip(score, 1e-12, 1 - 1e-12)
    return {
        "ece": expected_calibration_error(equal_width_bins(score, yes)),
        "adaptive_ece": expected_calibration_error(equal_mass_bins(score, yes)),
        "nll": float(log_loss(yes, clipped, labels=[False, True])),
        "brier": float(np.mean((score - yes) ** 2)),
    }


def bootstrap(
    statistics: Callable[[Floats, np.ndarray], Metrics],
    probabilities: Floats,
    truth: np.ndarray,
    *,
    rounds: int = 200,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals (Efron 1979): the images drawn again with replacement.

    The interval of an ECE lies a little high, because ECE grows with noise.
    """
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(rounds):
        index = generator.integers(len(truth), size=len(truth))
        drawn.append(statistics(probabilities[index], truth[index]))
    shared = set.intersection(*(set(values) for values in drawn))
    ends = {n: np.percentile([values[n] for values in drawn], ENDS) for n in shared}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}
