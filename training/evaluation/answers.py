"""softmax scores + truth → **answers**: all that the figures need of each image, once.

The scores [N, K] are looked through once. Figures are made of vectors [N], so that 200
bootstrap rounds draw vectors, and neither copy nor sort the scores of every class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.metrics import (
    Booleans,
    ClassRow,
    Floats,
    Integers,
    Metrics,
    Trials,
    class_rows,
    shares,
)
from training.evaluation.selective import risk_coverage

TOP = 5  # the second figure of every ImageNet table since 2010


@dataclass(frozen=True)
class Answers:
    """How N images were answered, by K classes."""

    classes: int  # K
    truth: Integers  # class index [N]
    predicted: Integers  # class index of the highest score [N]
    score: Floats  # the highest [N]
    rank: Integers  # how many classes are listed before the truth [N]
    nll: Floats  # negative log-likelihood in nats [N]
    brier: Floats  # Σ_k (p_k - y_k)², 0 to 2 [N]
    group_correct: Booleans | None  # the highest summed score is the truth's group's

    @classmethod
    def of(
        cls,
        probabilities: Floats,
        truth: Integers,
        *,
        nll: Floats,
        groups: Sequence[str] | None = None,
    ) -> "Answers":
        """From scores [N, K], class indices [N] and `softmax_losses` [N]; `groups` [K]
        of each class.
        """
        own = probabilities[np.arange(len(truth)), truth].astype(np.float64)  # [N]
        squares = np.einsum("nk,nk->n", probabilities, probabilities, dtype=np.float64)
        return cls(
            classes=probabilities.shape[1],
            truth=truth,
            predicted=probabilities.argmax(axis=1),
            score=probabilities.max(axis=1),
            rank=rank_of_truth(probabilities, truth),
            nll=nll,
            brier=squares - 2 * own + 1,
            group_correct=None
            if groups is None
            else group_correct(probabilities, truth, groups),
        )

    def select(self, index: Integers) -> "Answers":
        """Some of the images, in the order of `index`, which may name one twice."""
        grouped = self.group_correct
        return Answers(
            classes=self.classes,
            truth=self.truth[index],
            predicted=self.predicted[index],
            score=self.score[index],
            rank=self.rank[index],
            nll=self.nll[index],
            brier=self.brier[index],
            group_correct=None if grouped is None else grouped[index],
        )

    @property
    def correct(self) -> Booleans:
        """Whether the answer is the truth, bool [N]."""
        return self.rank == 0


def softmax_losses(logits: Floats, truth: Integers, temperature: float) -> Floats:
    """Negative log-likelihood of the truth in nats, float64 [N], of logits [N, K].

    log Σ exp(z_k/T) - z_truth/T, not of scores: they round to 0 however wrong they are.
    """
    best = logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # to -inf, whose exp is the right 0
        exponentials = np.exp((logits - best) / np.float32(temperature))
    own = logits[np.arange(len(truth)), truth].astype(np.float64)
    losses: Floats = np.log(exponentials.sum(axis=1, dtype=np.float64))
    return losses + (best[:, 0] - own) / temperature


def rank_of_truth(probabilities: Floats, truth: Integers) -> Integers:
    """How many classes are listed before the truth, int [N].

    Ties go by class index, as in the service: the lower index is listed first.
    """
    own = probabilities[np.arange(len(truth)), truth][:, None]  # [N, 1]
    lower = np.arange(probabilities.shape[1]) < truth[:, None]  # bool [N, K]
    rank: Integers = np.count_nonzero(probabilities > own, axis=1)
    return rank + np.count_nonzero(lower & (probabilities == own), axis=1)


def group_correct(
    probabilities: Floats, truth: Integers, groups: Sequence[str]
) -> Booleans:
    """Whether the truth's group (apple, pear, …) has the highest summed score, [N].

    `groups` [K] names the group of each class.
    """
    names, of_class = np.unique(np.array(groups), return_inverse=True)  # [G], int [K]
    summed = np.zeros((len(names), len(probabilities)))  # [G, N]
    # in float64 and in the order of the labels, as it is served
    for group, scores in zip(of_class, probabilities.T, strict=True):
        summed[group] += scores
    best = summed.argmax(axis=0)  # int [N]
    found: Booleans = best == of_class[truth]
    return found


def multiclass_trials(
    answers: Answers, *, abstain_threshold: float | None = None
) -> Trials:
    """Top-1, top-5 (where K > 5), and groups where there are any.

    With a threshold also how many images are answered (coverage), and how many of those
    answers are wrong (risk).
    """
    trials = {"accuracy": answers.correct}
    if answers.classes > TOP:  # with no more classes than that it is 1 anyway
        trials["top_5"] = answers.rank < TOP
    if answers.group_correct is not None:
        trials["group_accuracy"] = answers.group_correct
    if abstain_threshold is not None:
        # as the service compares: a plain float would be rounded to float32 scores
        answered = answers.score >= np.float64(abstain_threshold)
        trials["coverage"], trials["risk"] = answered, ~answers.correct[answered]
    return trials


def multiclass_metrics(
    answers: Answers, *, abstain_threshold: float | None = None
) -> Metrics:
    """The shares of `multiclass_trials`, mean accuracy of the classes, and AURC."""
    hits, _, n = _counts(answers)
    return shares(multiclass_trials(answers, abstain_threshold=abstain_threshold)) | {
        "balanced_accuracy": float(np.mean(hits[n > 0] / n[n > 0])),
        "aurc": risk_coverage(answers.score, answers.correct).aurc,
    }


def per_class(answers: Answers) -> list[ClassRow]:
    """One row a class, by top-1."""
    return class_rows(*_counts(answers))


def _counts(answers: Answers) -> tuple[Integers, Integers, Integers]:
    """Of each class: how often right, predicted, and true; int [K]."""
    hits, said, n = (
        np.bincount(index, minlength=answers.classes)
        for index in (answers.truth[answers.correct], answers.predicted, answers.truth)
    )
    return hits, said, n
