"""Scores that a test has written down, without the logits that they came from."""

from collections.abc import Sequence

import numpy as np

from training.evaluation.answers import Answers
from training.evaluation.metrics import Metrics
from training.evaluation.reliability import sigmoid_reliability

LEAST = 1e-12  # a score of 0 for the truth would cost infinitely much


def answers_of(
    scores: np.ndarray, truth: np.ndarray, *, groups: Sequence[str] | None = None
) -> Answers:
    """Answers of softmax scores [N, K], with the losses that the scores tell."""
    own = scores[np.arange(len(truth)), truth].astype(np.float64)
    nll = -np.log(np.maximum(own, LEAST))
    return Answers.of(scores, truth, nll=nll, groups=groups)


def reliability_of(scores: np.ndarray, truth: np.ndarray) -> Metrics:
    """Reliability of yes/no scores, with the losses that the scores tell."""
    right = np.where(truth, scores, 1 - scores.astype(np.float64))
    return sigmoid_reliability(scores, truth, nll=-np.log(np.maximum(right, LEAST)))
