"""probabilities + truth → **metrics**: one function a task, plain numbers by name.

N images, K classes. Probabilities are float [N, K] ([N] for binary), truth is the class
index int [N], or bool [N, K] for multi-label. A value that is undefined on the images
at hand (the average precision of a label that never occurs) is left out, never
invented.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata  # type: ignore[import-untyped]
from sklearn import metrics as sk  # type: ignore[import-untyped]

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
Booleans = NDArray[np.bool_]
Truth = NDArray[Any]  # class index [N]; bool [N] binary, bool [N, K] multi-label
Metrics = dict[str, float]
Trials = dict[str, Booleans]  # by the name of a share: each trial, a success or not


def shares(trials: Trials) -> Metrics:
    """The share of successes; none where there was no trial."""
    return {name: float(np.mean(t)) for name, t in trials.items() if len(t)}


def binary_trials(decided: Booleans, truth: Booleans) -> Trials:
    """What a detector's shares are of: all images, its yes, the positives."""
    return {
        "accuracy": decided == truth,
        "prevalence": truth,
        "precision": truth[decided],
        "recall": decided[truth],
    }


def multilabel_trials(decided: Booleans, truth: Booleans) -> Trials:
    """Images whose labels are all right. Labels of one image are no trials apart."""
    return {"exact_match": (decided == truth).all(axis=1)}


def binary_metrics(positive: Floats, truth: Booleans, *, threshold: float) -> Metrics:
    """Of a detector: `positive` [N] are scores of the positive label, truth bool [N].

    `pr_auc` is average precision (no interpolation); accuracy alone says little when
    one label is rare, so Matthews' correlation and balanced accuracy stand beside it.
    """
    decided = positive >= np.float64(threshold)  # a float would be rounded to float32
    values = shares(binary_trials(decided, truth))
    if decided.any() or truth.any():
        values["f1"] = f1_of_all(decided, truth)
    if not truth.any():
        return values
    values["pr_auc"] = float(sk.average_precision_score(truth, positive))
    if truth.all():
        return values
    return values | {
        "roc_auc": roc_auc(positive, truth),
        "mcc": correlation(decided, truth),
        "balanced_accuracy": (values["recall"] + float(np.mean(~decided[~truth]))) / 2,
    }


def roc_auc(positive: Floats, truth: Booleans) -> float:
    """How often a positive image has the higher score than another, ties by half.

    Mann and Whitney's U over the number of pairs; both labels must occur.
    """
    ranks = rankdata(positive)  # from 1; equal scores share the mean of theirs
    n = int(np.count_nonzero(truth))
    above = float(ranks[truth].sum()) - n * (n + 1) / 2
    return above / (n * (len(truth) - n))


def correlation(decided: Booleans, truth: Booleans) -> float:
    """Matthews', bool [N] each: 0 where all answers, or all truths, are the same.

    By hand, as the area above: an interval takes each figure two hundred times, and a
    call of scikit-learn takes milliseconds.
    """
    spread = float(decided.std() * truth.std())
    together = np.mean(decided & truth) - decided.mean() * truth.mean()
    return float(together) / spread if spread else 0.0


@dataclass(frozen=True)
class ClassRow:
    """How one class fared: `n` images have it, `predicted` were said to."""

    index: int
    n: int
    predicted: int
    precision: float | None  # None where nothing was predicted
    recall: float | None  # None where no image has it
    f1: float | None  # None where both hold


def per_label(
    probabilities: Floats, truth: Booleans, thresholds: Sequence[float]
) -> list[ClassRow]:
    """One row a label of a multi-label set, each at its own threshold."""
    decided = probabilities >= np.asarray(thresholds)  # bool [N, K]
    hits = (decided & truth).sum(axis=0)
    return class_rows(hits, decided.sum(axis=0), truth.sum(axis=0))


def class_rows(hits: Integers, said: Integers, n: Integers) -> list[ClassRow]:
    """One row a class, of how often it was right, predicted and true; int [K] each."""
    return [
        ClassRow(
            k,
            int(n[k]),
            int(said[k]),
            _ratio(hits[k], said[k]),
            _ratio(hits[k], n[k]),
            _ratio(2 * hits[k], said[k] + n[k]),
        )
        for k in range(len(n))
    ]


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def multilabel_metrics(
    probabilities: Floats, truth: Booleans, *, thresholds: Sequence[float]
) -> Metrics:
    """Micro and macro F1, single and exact matches; mAP is that of rankings."""
    decided = probabilities >= np.asarray(thresholds)  # bool [N, K]
    values = shares(multilabel_trials(decided, truth))
    values["accuracy"] = float(np.mean(decided == truth))  # of single yes/no answers
    f1 = f1_by_label(decided, truth)
    if len(f1):
        values["micro_f1"] = f1_of_all(decided, truth)
        values["macro_f1"] = float(np.mean(f1))
    return values


def f1_by_label(decided: Booleans, truth: Booleans) -> Floats:
    """F1 of each label that occurs or was predicted; of the others there is none.

    2·hits / (predicted + true): 0 where a label was missed or invented throughout.
    """
    hits = (decided & truth).sum(axis=0)  # int [K]
    named = decided.sum(axis=0) + truth.sum(axis=0)
    f1: Floats = 2 * hits[named > 0] / named[named > 0]
    return f1


def f1_of_all(decided: Booleans, truth: Booleans) -> float:
    """F1 of all answers, of any shape, as if of one label, which must occur in them."""
    return float(f1_by_label(decided.reshape(-1, 1), truth.reshape(-1, 1))[0])


@dataclass(frozen=True)
class Ranking:
    """N images by the scores of one label, sorted once for all draws of them.

    The P positives come highest score first. Images of equal scores are one step of the
    curve, which has the precision that holds at the end of it.
    """

    order: Integers  # the images, highest score first [N]
    positives: Integers  # the images that are positive, in that order [P]
    ends: Integers  # position in `order` of the last image of a positive's score [P]
    ties: Integers  # position in `positives` of the last one of the same score [P]

    @classmethod
    def of(cls, scores: Floats, truth: Booleans) -> "Ranking":
        """From scores [N] of a label and whether it is true, bool [N]."""
        order = np.argsort(-scores, kind="stable")
        ranked = -scores[order]  # ascending, as searchsorted wants them
        positives = order[truth[order]]
        own = -scores[positives]
        return cls(
            order,
            positives,
            ends=np.searchsorted(ranked, own, side="right") - 1,
            ties=np.searchsorted(own, own, side="right") - 1,
        )

    def average_precision(self, times: Integers | None = None) -> float | None:
        """Of the images, or of a draw that has each so many `times`, int [N].

        Without interpolation: the mean, over the positives, of the precision among all
        that score as high. None if there is no positive.
        """
        if times is None:
            times = np.ones(len(self.order), np.int64)
        drawn = times[self.positives]
        total = int(drawn.sum())
        if not total:
            return None
        as_high = np.cumsum(times[self.order])[self.ends]  # 0 only if undrawn, [P]
        precision = np.cumsum(drawn)[self.ties] / np.maximum(as_high, 1)
        return float(drawn @ precision) / total


def rankings(probabilities: Floats, truth: Booleans) -> list[Ranking]:
    """One a label; both [N, K]."""
    return [Ranking.of(probabilities[:, k], truth[:, k]) for k in range(truth.shape[1])]


def mean_average_precision(ranked: Sequence[Ranking], index: Integers) -> Metrics:
    """mAP of the images at some positions, int [N], over the labels that they have."""
    times = np.bincount(index, minlength=len(ranked[0].order))
    precisions = [label.average_precision(times) for label in ranked]
    present = [value for value in precisions if value is not None]
    return {"map": float(np.mean(present))} if present else {}


@dataclass(frozen=True)
class ConfusablePair:
    """Two classes taken for each other; `a_as_b` images of a were called b."""

    a: int
    b: int
    a_as_b: int
    b_as_a: int
    share: float  # of the images of both classes


def confusable_pairs(
    probabilities: Floats, truth: Integers, *, limit: int = 10
) -> list[ConfusablePair]:
    """The pairs of classes most often mixed up, worst first, by top-1."""
    predicted = probabilities.argmax(axis=1)
    wrong = Counter(
        (int(t), int(p)) for t, p in zip(truth, predicted, strict=True) if t != p
    )
    n = np.bincount(truth, minlength=probabilities.shape[1])
    pairs = {(min(pair), max(pair)) for pair in wrong}
    found = [
        ConfusablePair(
            a,
            b,
            wrong[a, b],
            wrong[b, a],
            (wrong[a, b] + wrong[b, a]) / max(1, int(n[a] + n[b])),
        )
        for a, b in pairs
    ]
    found.sort(key=lambda p: (-(p.a_as_b + p.b_as_a), -p.share, p.a, p.b))
    return found[:limit]


def confusion_matrix(predicted: Integers, truth: Integers, *, classes: int) -> Integers:
    """int [K, K]: row is the truth, column the prediction."""
    counts: Integers = sk.confusion_matrix(truth, predicted, labels=np.arange(classes))
    return counts
