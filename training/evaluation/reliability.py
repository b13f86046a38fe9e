"""scores + correctness → **reliability**: does 0.8 mean right in 8 cases of 10?

`score` float [N] is what was answered with, `correct` bool [N] whether it was right.
For a sigmoid the pair is (probability of yes, truth), so both ends of the scale are
looked at.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_expit  # type: ignore[import-untyped]

from training.evaluation.answers import Answers
from training.evaluation.metrics import Booleans, Floats, Metrics

BINS = 15  # as in Guo et al. 2017, arXiv:1706.04599
GAPS = ("ece", "adaptive_ece")  # never negative, so that noise makes them larger
HONESTY = (*GAPS, "nll", "brier")


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
    """Bins of (nearly) equal numbers of images, as Nixon et al., arXiv:1904.01685.

    An edge may part images of the same score: each counts as right by their share, so
    that the order in which they came does not matter.
    """
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    firsts = np.flatnonzero(np.diff(ranked, prepend=-np.inf))  # of each score
    alike = np.diff(firsts, append=len(ranked))  # how many images have it
    right = np.add.reduceat(correct[order], firsts, dtype=np.float64) / alike
    share = np.repeat(right, alike)  # of the images with the score of each, [N]
    return [
        _bin(ranked[part], share[part], ranked[part[0]], ranked[part[-1]])
        for part in np.array_split(np.arange(len(ranked)), bins)
        if len(part)
    ]


def _bin(score: Floats, correct: Booleans | Floats, low: float, high: float) -> Bin:
    mean, share = float(score.mean()), float(correct.mean())
    return Bin(float(low), float(high), len(score), mean, share)


def expected_calibration_error(bins: list[Bin]) -> float:
    """Σ n_b/N · |share correct in b - mean score in b|."""
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.share_correct - b.mean_score) for b in bins) / total


def softmax_reliability(answers: Answers) -> Metrics:
    """ECE, adaptive ECE, NLL (nats) and Brier of top-1 answers with softmax scores."""
    score, correct = answers.score, answers.correct
    return {
        "ece": expected_calibration_error(equal_width_bins(score, correct)),
        "adaptive_ece": expected_calibration_error(equal_mass_bins(score, correct)),
        "nll": float(answers.nll.mean()),
        "brier": float(answers.brier.mean()),
    }


def sigmoid_losses(logits: Floats, truth: Booleans, temperature: float) -> Floats:
    """Negative log-likelihood of the truth in nats, float64, of yes/no logits [N, K].

    log(1 + exp(∓z/T)): a float32 score has few digits near 1, and is 1 from 17 on.
    """
    scaled = logits.astype(np.float64) / temperature
    losses: Floats = -log_expit(np.where(truth, scaled, -scaled))
    return losses


def sigmoid_reliability(
    probabilities: Floats, truth: Booleans, *, nll: Floats
) -> Metrics:
    """The same for yes/no scores of any shape, each score an answer of its own, with
    its `sigmoid_losses`.
    """
    score, yes = probabilities.ravel().astype(np.float64), truth.ravel()
    return {
        "ece": expected_calibration_error(equal_width_bins(score, yes)),
        "adaptive_ece": expected_calibration_error(equal_mass_bins(score, yes)),
        "nll": float(nll.mean()),
        "brier": float(np.mean((score - yes) ** 2)),
    }
