"""int8 graph + images → **served or not**: the accuracy gate.

An int8 graph is shipped only where it loses at most one point of accuracy on labelled
images, of F1 too where answers are yes or no, answers as fp32 does on 97 of 100, and
keeps what was asked for to within a point: a recall, a cost, a risk. Logits that are
not finite are never shipped. Where all layers in int8 fail, some channels are copied,
and then some layers stay in fp32, more at each attempt (`rescue.py`); where that fails
too, the bundle keeps to fp32 and the gate says why. Few images tell little of the
agreement on all others: how little stands beside it, and refuses nothing.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from classifier.manifest import Gate
from training.data.scenes import Scenes
from training.evaluation.selective import clopper_pearson_upper, evidence
from training.graphs.graph import GraphError, run
from training.quantization.float16 import halve_weights
from training.quantization.packing import pack_pixels
from training.quantization.quantize import measure
from training.quantization.rescue import Attempt, attempts

MAX_DROP = 0.01  # one point, of accuracy and of F1
MIN_AGREEMENT = 0.97
# Of so many that all agree, 95 % confidence in MIN_AGREEMENT comes (exactly: of 99).
ENOUGH_IMAGES = 100

LOGGER = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]  # [N, H, W, C]
Logits = NDArray[np.float32]  # [N, K]
Decisions = NDArray[np.generic]  # class index int [N], or bool [N] or [N, K]
Decide = Callable[[Logits], Decisions]
# What was asked for and int8 does not keep; of the labelled images, fp32's and int8's.
Unmet = Callable[[Logits, Logits], str | None]


@dataclass(frozen=True)
class Labelled:
    """Images whose truth is known: class index int [ΣN], or bool [ΣN] or [ΣN, K].

    `scenes` [ΣN] are those of each, where photos were taken in series.
    """

    dataset: str
    batches: Sequence[Pixels]
    truth: Decisions
    scenes: Scenes | None = None


@dataclass(frozen=True)
class Gated:
    """What came through the gate, or why nothing did."""

    graph: bytes | None  # None: the bundle keeps to fp32
    gate: Gate  # of this graph, or of the best attempt
    change: NDArray[np.float64]  # of each class, int8 minus fp32 accuracy, [K]


def best_label(logits: Logits) -> Decisions:
    """The decision of a softmax head: class index [N]."""
    best: Decisions = np.argmax(logits, axis=1)
    return best


def gated_int8(  # noqa: PLR0913 - a graph, its images, and what it has to keep
    fp32: bytes,
    calibration: Iterable[Pixels],
    *,
    labelled: Labelled,
    unlabelled: Sequence[Pixels] = (),
    decide: Decide = best_label,
    answer: Decide | None = None,
    unmet: Unmet | None = None,
) -> Gated:
    """The int8 graph with the fewest layers in fp32 that passes, if any does.

    `calibration` gives the ranges of the activations. Accuracy is measured on
    `labelled`, agreement on `unlabelled` where there are any. Neither of these two may
    have been learned from: of what it knows by heart a network is so sure that int8
    decides the same.

    Accuracy is that of `decide`; agreement that of `answer`, where an image may also go
    without a label. For multi-label both are shares of single decisions, image times
    label. What is `unmet` refuses a graph whatever its figures are.

    Raises:
        GraphError: the graph does not run, or its logits are not finite in fp32.
        QuantizationError: it has nothing to quantize or cannot be quantized.
    """
    others, scenes = sum(map(len, unlabelled)), labelled.scenes
    few = too_few(others) if others else too_few(len(labelled.truth), scenes)
    if few:  # said before the minutes that the rest may take
        LOGGER.warning("int8: %s", few)
    images = [*labelled.batches, *unlabelled]
    answer = answer or decide
    logits = run_finite(fp32, images)
    LOGGER.info("int8: measuring the ranges of the activations")
    measured = measure(fp32, calibration)
    reference, given, truth = decide(logits), answer(logits), labelled.truth
    n, yes_or_no = len(truth), truth.ndim == 1 and truth.dtype == np.bool_
    classes = 2 if yes_or_no else logits.shape[1]
    tried: list[Gated] = []
    for attempt in attempts(measured, unlabelled or labelled.batches):
        # layers that stay in fp32 would make the file large; what it costs is judged
        int8 = halve_weights(pack_pixels(attempt.graph))
        smaller = run(int8, images)
        broken = not_finite(smaller)
        # refused in any case, but the figures want numbers
        smaller[~np.isfinite(smaller)] = 0
        decided = decide(smaller)
        gate = judge(
            reference,
            decided,
            labelled,
            how=how_made(attempt),
            answers=(given, answer(smaller)),
            unmet=broken or (unmet(logits[:n], smaller[:n]) if unmet else None),
        )
        verdict = "passed" if gate.passed else "refused"
        LOGGER.info("int8, %s: %s", gate.reason, verdict)
        change = change_by_class(reference[:n], decided[:n], truth, classes=classes)
        if gate.passed:
            return Gated(int8, gate, change)
        tried.append(Gated(None, gate, change))
    best = nearest(tried)
    reason = f"kept to fp32 after {len(tried)} attempts; the best: {best.gate.reason}"
    return replace(best, gate=best.gate.model_copy(update={"reason": reason}))


def run_finite(graph: bytes, batches: Sequence[NDArray[np.uint8]]) -> Logits:
    """Logits of the fp32 graph. Raises GraphError where one is no number."""
    logits = run(graph, batches)
    if broken := not_finite(logits):
        raise GraphError(f"in fp32 already, {broken}")
    return logits


def not_finite(logits: Logits) -> str | None:
    """Of how many images a logit is NaN or infinite, in words; None where none is."""
    images = int(np.count_nonzero(~np.isfinite(logits).all(axis=1)))
    if not images:
        return None
    return f"logits are not finite numbers on {images} of {len(logits)} images"


def nearest(tried: Sequence[Gated]) -> Gated:
    """The attempt that comes nearest to passing.

    A gain of accuracy on a few images makes up for no decision that differs.
    """
    return max(tried, key=lambda g: g.gate.agreement - max(g.gate.accuracy_drop, 0.0))


def judge(
    fp32: Decisions,
    int8: Decisions,
    labelled: Labelled,
    *,
    how: str,
    answers: tuple[Decisions, Decisions] | None = None,
    unmet: str | None = None,
) -> Gate:
    """Compare two sets of decisions, of which the first belong to `labelled`.

    `how` int8 was made begins the reason. `answers` are those of both graphs where they
    are not the decisions, `unmet` what int8 does not keep of what was asked for.
    """
    truth, n = labelled.truth, len(labelled.truth)
    before, after = (figures(decided[:n], truth) for decided in (fp32, int8))
    lost = {name: before[name] - after[name] for name in before}
    # Without unlabelled images, the labelled ones must do for agreement too.
    others = slice(n, None) if len(fp32) > n else slice(None)
    one, other = answers or (fp32, int8)
    same = one[others] == other[others]
    agreement = float(np.mean(same))
    scenes = labelled.scenes if len(fp32) == n else None
    bound = agreement_lower(agreement, len(same), scenes)
    further = (too_few(len(same), scenes), unmet)
    # a hair of tolerance: 0.85 - 0.84 is more than 0.01 in binary fractions
    passed = (
        max(lost.values()) <= MAX_DROP + 1e-9
        and agreement >= MIN_AGREEMENT
        and unmet is None
    )
    counted = "images" if truth.ndim == 1 else "decisions"
    f1 = f", F1 {_change(lost['F1'])}" if "F1" in lost else ""
    return Gate(
        passed=passed,
        dataset=labelled.dataset,
        n=n,
        accuracy_drop=lost["accuracy"],
        agreement=agreement,
        reason=f"{how}; accuracy over {truth.size} labelled {counted} "
        f"{_change(lost['accuracy'])} points{f1} (at most 1 lost), agreement over "
        f"{same.size} {counted} {100 * agreement:.2f} % "
        f"(at least {100 * MIN_AGREEMENT:.0f}), with 95 % confidence "
        f"{100 * bound:.2f} % or more"
        + "".join(f"; {more}" for more in further if more),
    )


def how_made(attempt: Attempt) -> str:
    """Which layers are in int8, and what it took, in words."""
    kept = f"in fp32: {', '.join(attempt.kept)}" if attempt.kept else ""
    copies = f"{attempt.copies} copies of channels" if attempt.copies else ""
    return ", ".join(filter(None, (kept or "all layers in int8", copies)))


def agreement_lower(
    agreement: float, images: int, scenes: Scenes | None = None
) -> float:
    """One-sided lower bound of the agreement on all images, seen on so many (exact).

    The labels of an image may all differ together: many decisions count as one image,
    and the images of scenes [N] as `evidence` says.
    """
    worth = evidence(images, scenes)
    return 1 - clopper_pearson_upper((1 - agreement) * worth, worth)


def too_few(images: int, scenes: Scenes | None = None) -> str | None:
    """What so few images leave open even where all agree; None where they are enough.

    It refuses nothing: where data is rare, a coarse gate is better than none.
    """
    bound = agreement_lower(1.0, images, scenes)
    if bound >= MIN_AGREEMENT:
        return None
    counted = f"{images} image{'s' * (images != 1)}"
    if scenes is not None:
        counted += f" in scenes, worth {evidence(images, scenes):.0f} single ones,"
    return (
        f"{counted} cannot tell {100 * MIN_AGREEMENT:.0f} % agreement from "
        f"{100 * bound:.2f} %: give at least {ENOUGH_IMAGES}"
    )


def _change(lost: float) -> str:
    return f"{'lost' if lost >= 0 else 'gained'} {100 * abs(lost):.2f}"


def figures(decided: Decisions, truth: Decisions) -> dict[str, float]:
    """Accuracy, and F1 of decisions of yes and no, over all labels at once.

    Where yes is rare, a detector that finds half is as accurate as one that finds all.
    """
    values = {"accuracy": float(np.mean(decided == truth))}
    if truth.dtype == np.bool_:
        each = (np.logical_and(decided, truth), decided, truth)
        hits, said, true = (int(np.count_nonzero(yes)) for yes in each)
        values["F1"] = 2 * hits / max(1, said + true)
    return values


def change_by_class(
    fp32: Decisions, int8: Decisions, truth: Decisions, *, classes: int
) -> NDArray[np.float64]:
    """int8 minus fp32 accuracy of each class [K]; NaN where no image is of it."""
    change = np.full(classes, np.nan)
    for k in range(classes):
        if truth.ndim == 1:
            chosen = truth == k
            right = [np.mean(d[chosen] == k) for d in (fp32, int8) if chosen.any()]
        else:
            right = [np.mean(d[:, k] == truth[:, k]) for d in (fp32, int8)]
        if right:
            change[k] = right[1] - right[0]
    return change
