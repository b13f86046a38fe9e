"""validation probabilities → **thresholds**: from which score a label counts.

Chosen on validation images, never on test. That of a question lies halfway between two
neighbouring scores, so that rounding in another precision does not flip the images that
it was chosen from. Those of several labels are blends of such, and lie anywhere.
"""

import numpy as np
from sklearn.metrics import (  # type: ignore[import-untyped]
    precision_recall_curve,
)
from sklearn.model_selection import (  # type: ignore[import-untyped]
    GroupKFold,
    KFold,
)

from training.data.scenes import Scenes
from training.errors import DataError
from training.evaluation.metrics import Booleans, Floats, Integers, f1_by_label

FOLDS = 5
RARE = 20  # with fewer positives than this a label's own best threshold is mostly noise


def _between(scores: Floats, threshold: float) -> float:
    """Halfway from `threshold`, a score or above all, to the next lower one (or 0)."""
    # in float64, as by the service: one above all would be rounded to a score of 1
    lower = scores[scores < np.float64(threshold)]
    below = float(lower.max()) if len(lower) else 0.0
    return (float(threshold) + below) / 2


def by_cost(
    positive: Floats, truth: Booleans, *, false_positive: float, false_negative: float
) -> float:
    """The threshold of least total cost; positive [N] are scores, truth bool [N].

    It may be above all scores, so that no image is a yes, unless one is 1 already.
    """
    candidates = np.unique(positive).astype(np.float64)
    if candidates[-1] < 1:
        candidates = np.append(candidates, np.nextafter(1.0, 2.0))
    ordered = np.sort(positive[truth]), np.sort(positive[~truth])
    missed = np.searchsorted(ordered[0], candidates)  # positives under each candidate
    alarms = len(ordered[1]) - np.searchsorted(ordered[1], candidates)
    cost = false_negative * missed + false_positive * alarms
    best = np.flatnonzero(cost == cost.min())
    # Among equals the middle one is farthest from either mistake.
    chosen = float(candidates[best[len(best) // 2]])
    return min(1.0, _between(positive, chosen))


def by_recall(positive: Floats, truth: Booleans, *, recall: float) -> float:
    """The highest threshold that still finds this share of the positives.

    Raises:
        DataError: there is no positive to find.
    """
    found = np.sort(positive[truth])[::-1]
    if not len(found):
        raise DataError(
            f"a recall of {recall} needs validation images of the positive label, and "
            "there are none: give validation more images, or choose the threshold by "
            "costs (false_positive_cost, false_negative_cost)"
        )
    needed = max(1, int(np.ceil(recall * len(found) - 1e-9)))
    return _between(positive, float(found[needed - 1]))


def by_f1(positive: Floats, truth: Booleans) -> float:
    """The threshold of the best F1; 0.5 when the label never occurs."""
    if not truth.any():
        return 0.5
    precision, recall, candidates = precision_recall_curve(truth, positive)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return _between(positive, float(candidates[f1[:-1].argmax()]))


def per_label_f1(
    probabilities: Floats, truth: Booleans, *, scenes: Scenes | None = None
) -> list[float]:
    """One F1 threshold a label [K]: median over folds, rare labels shrunk.

    Each fold's threshold comes from the other folds' images; their median is steadier
    than one fit to all. A label with n positives keeps n / (n + 20) of its own
    threshold; the rest comes from the threshold that is best for all labels at once.
    The images of a scene [N] share a fold.
    """
    shared = by_f1(probabilities.ravel(), truth.ravel())
    splits = _folds(len(truth), scenes)
    if not splits:
        return [shared] * truth.shape[1]
    chosen = []
    for k in range(truth.shape[1]):
        own = [by_f1(probabilities[rest, k], truth[rest, k]) for rest, _ in splits]
        n = int(truth[:, k].sum())
        weight = n / (n + RARE)
        chosen.append(weight * float(np.median(own)) + (1 - weight) * shared)
    return chosen


def out_of_fold_f1(
    probabilities: Floats, truth: Booleans, *, scenes: Scenes | None = None
) -> float | None:
    """Macro F1 with each fold decided by thresholds that never saw it, nor its scenes.

    None where there is but one image or scene, or where no label occurs or was
    predicted.
    """
    splits = _folds(len(truth), scenes)
    if not splits:
        return None
    decided = np.zeros_like(truth)
    for rest, held_out in splits:
        known = None if scenes is None else scenes[rest]
        chosen = per_label_f1(probabilities[rest], truth[rest], scenes=known)
        decided[held_out] = probabilities[held_out] >= np.asarray(chosen)
    f1 = f1_by_label(decided, truth)
    return float(np.mean(f1)) if len(f1) else None


def _folds(images: int, scenes: Scenes | None) -> list[tuple[Integers, Integers]]:
    """Positions to choose by and those held out; none where there is nothing to part.

    Thresholds that have seen the neighbors of an image have seen the image.
    """
    parts = images if scenes is None else len(np.unique(scenes))
    if parts == 1:
        return []
    deal = KFold if scenes is None else GroupKFold
    splitter = deal(min(FOLDS, parts), shuffle=True, random_state=0)
    return list(splitter.split(np.arange(images), groups=scenes))
