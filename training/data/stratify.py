"""labels → **hold-out**: a seeded part of a split in which every label keeps its share.

Single labels are drawn class by class. For multi-label data that is impossible, as
every combination is a class of its own; iterative stratification serves the rarest
label first (Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label
Data", ECML PKDD 2011). Where samples come in scenes, whole scenes are drawn.
"""

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Labels
from training.data.scenes import Scenes

Indices = NDArray[np.int64]


def hold_out(
    labels: Labels, *, count: int, seed: int, scenes: Scenes | None = None
) -> Indices:
    """Positions of about `count` samples, int64, sorted; each label keeps its share.

    A class with at least two samples keeps one outside and, if the share allows half a
    sample, puts one inside. With `scenes` it is whole scenes that are held out, and a
    label's share is only as near as its scenes allow.
    """
    rng = np.random.default_rng(seed)
    if scenes is not None:
        chosen = _by_scene(labels, scenes, count, rng)
    elif labels.ndim == 1:
        chosen = _by_class(labels, count, rng)
    else:
        chosen = _iteratively(labels.astype(bool), count, rng)
    return np.sort(chosen)


def _by_class(labels: Labels, count: int, rng: np.random.Generator) -> Indices:
    share = count / max(len(labels), 1)
    members = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    exact = np.array([len(m) * share for m in members])
    takes = np.floor(exact).astype(np.int64)
    # Largest remainders get what rounding left over; ties are drawn.
    order = np.lexsort((rng.random(len(exact)), takes - exact))
    takes[order[: count - int(takes.sum())]] += 1
    room = np.array([len(m) - 1 for m in members])
    takes = np.minimum(takes, np.maximum(room, 0))
    parts = [rng.permutation(m)[:n] for m, n in zip(members, takes, strict=True)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _by_scene(
    labels: Labels, scenes: Scenes, count: int, rng: np.random.Generator
) -> Indices:
    """Scenes in random order, each that brings the labels nearer to their shares."""
    share = count / max(len(labels), 1)
    names, index = np.unique(scenes, return_inverse=True)
    hot = labels if labels.ndim > 1 else labels[:, None] == np.unique(labels)
    brought = np.zeros((len(names), hot.shape[1]))  # [scenes, K]
    np.add.at(brought, index, hot)
    brought /= brought.sum(0).clip(min=1)  # as parts of each label
    taken = np.zeros(hot.shape[1])
    chosen = np.zeros(len(names), np.bool_)
    for scene in rng.permutation(len(names)):
        with_it = taken + brought[scene]
        if np.abs(with_it - share).sum() < np.abs(taken - share).sum():
            taken, chosen[scene] = with_it, True
    return np.flatnonzero(chosen[index])


def _iteratively(
    hot: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> Indices:
    """Send samples, rarest label first, to the side that still wants more of it."""
    n = len(hot)
    sides = np.array([count, n - count], np.float64)  # samples wanted: in, out
    wanted = np.outer(sides / max(n, 1), hot.sum(0))  # [2, K], of each label
    side_of = np.full(n, -1)
    while (side_of < 0).any():
        open_hot = hot & (side_of < 0)[:, None]
        left = open_hot.sum(0)
        if not left.any():
            break
        rarest = int(np.where(left > 0, left, n + 1).argmin())
        for sample in rng.permutation(np.flatnonzero(open_hot[:, rarest])):
            # By demand for this label, then for samples at all, then at random.
            side = int(np.lexsort((rng.random(2), -sides, -wanted[:, rarest]))[0])
            side_of[sample] = side
            wanted[side] -= hot[sample]
            sides[side] -= 1
    unlabelled = rng.permutation(np.flatnonzero(side_of < 0))
    side_of[unlabelled[: max(round(sides[0]), 0)]] = 0
    return np.flatnonzero(side_of == 0)
