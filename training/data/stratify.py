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

    A label with at least two samples keeps one outside and puts one inside, which a
    frequent label makes room for: `count` stays. So more labels than `count` has room
    for cannot all be inside. With `scenes` it is whole scenes that are held out, and a
    label's share is only as near as its scenes allow; the last scene of a label stays
    outside, also where it has but one.
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
    room = np.array([len(m) - 1 for m in members], np.int64)
    takes = _one_of_each(np.minimum(takes, room), room)
    parts = [rng.permutation(m)[:n] for m, n in zip(members, takes, strict=True)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _one_of_each(takes: Indices, room: Indices) -> Indices:
    """A label without a sample inside gets one from the label that has the most."""
    for k in np.flatnonzero((takes == 0) & (room > 0)):
        most = takes.argmax()
        if takes[most] > 1:
            takes[most], takes[k] = takes[most] - 1, 1
    return takes


def _by_scene(
    labels: Labels, scenes: Scenes, count: int, rng: np.random.Generator
) -> Indices:
    """Scenes in random order, each that brings the labels nearer to their shares.

    None that is the last outside to show one of its labels.
    """
    share = count / max(len(labels), 1)
    names, index = np.unique(scenes, return_inverse=True)
    hot = labels if labels.ndim > 1 else labels[:, None] == np.unique(labels)
    brought = np.zeros((len(names), hot.shape[1]))  # [scenes, K]
    np.add.at(brought, index, hot)
    brought /= brought.sum(0).clip(min=1)  # as parts of each label
    shown = brought > 0
    taken = np.zeros(hot.shape[1])
    outside = shown.sum(0)  # [K], how many scenes outside show each label
    chosen = np.zeros(len(names), np.bool_)
    for scene in rng.permutation(len(names)):
        if (outside[shown[scene]] == 1).any():
            continue
        with_it = taken + brought[scene]
        if np.abs(with_it - share).sum() < np.abs(taken - share).sum():
            taken, chosen[scene] = with_it, True
            outside -= shown[scene]
    return np.flatnonzero(_with_each_label(chosen, brought, share, rng)[index])


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
    parts = hot / hot.sum(0).clip(min=1)
    return np.flatnonzero(_with_each_label(side_of == 0, parts, count / max(n, 1), rng))


def _with_each_label(
    chosen: NDArray[np.bool_],
    brought: NDArray[np.float64],
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Scenes or samples, exchanged until each label that can be is inside.

    `chosen` [U] says which are inside, `brought` [U, K] which part of each label a
    scene or sample is. One that shows the label comes in, another goes out, and of
    those that can it is the ones that leave the labels nearest to their shares. Where
    all labels are inside already, nothing is drawn.
    """
    shown = brought > 0
    missing = (shown.sum(0) > 1) & ~shown[chosen].any(0)
    for k in sorted(np.flatnonzero(missing), key=lambda k: shown[:, k].sum()):
        if shown[chosen, k].any():  # it came with another label
            continue
        off = brought[chosen].sum(0) - share  # [K], what is inside too much
        comes = _nearest(_spare(shown, ~chosen) & shown[:, k], off + brought, rng)
        if comes is None:
            continue
        inside = chosen.copy()
        inside[comes] = True
        goes = _nearest(_spare(shown, inside), off + brought[comes] - brought, rng)
        if goes is not None:
            inside[goes] = False
            chosen = inside
    return chosen


def _spare(shown: NDArray[np.bool_], here: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of those that are `here` [U] can go, as others here show their labels."""
    scarce = shown[here].sum(0) < 2  # noqa: PLR2004 - itself and another
    return here & ~(shown & scarce).any(1)


def _nearest(
    able: NDArray[np.bool_], off: NDArray[np.float64], rng: np.random.Generator
) -> int | None:
    """Which of those that are `able` [U] is the least `off` [U, K]; drawn among equals.

    None where none is able.
    """
    places = rng.permutation(np.flatnonzero(able))
    if not len(places):
        return None
    return int(places[np.abs(off[places]).sum(1).argmin()])
