"""fp32 graph + splits → **bundle**: rules, smaller graphs, golden, figures, card.

The order matters: the rules are fitted on the graph that is served, smaller graphs are
judged by those rules, and the test split is opened last, through `classifier/`, for all
graphs at once. The bundle appears whole or not at all.
"""

import logging
from collections.abc import Container, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.manifest import PostprocessSpec, Precision, Task
from training.bundling.draft import (
    Built,
    Recipe,
    make_golden,
    next_version,
    write_manifest,
)
from training.bundling.figures import Bundled, measured_bundle
from training.data import Splits
from training.data.dataset import Split, first_of
from training.data.pieces import in_pieces
from training.errors import DataError
from training.evaluation.metrics import Truth
from training.graphs.class_maps import add_class_maps
from training.graphs.graph import GraphError, run
from training.quantization.float16 import (
    MAX_ACTIVATION,
    largest_activation,
    lost_in_float16,
    store_weights_as_float16,
    to_float16,
)
from training.quantization.gate import Gated, Labelled, gated_int8, run_finite
from training.quantization.quantize import QuantizationError
from training.reports.markdown import code
from training.rules.requirements import requirement_lines, unmet
from training.rules.rules import answers, decisions, fit_rules, out_of_fold_f1_lines

BATCH = 16
# Validation images whose activations are looked at, which takes several times a run.
ACTIVATION_IMAGES = 32 * BATCH
# The logits of `digits` move by 18 % of their std in int8 with the ranges of one image,
# by 12 % with five, 6 % with twenty, 4 to 7 % with fifty and 3.3 % with three hundred
# (500 validation images; mean or span of three draws).
FEW_CALIBRATION_IMAGES = 50
COMPARED_BATCHES = 4  # of fp16 and fp32
GOLDEN_IMAGES, GOLDEN_BYTES = 4, 700_000  # at most so many of so much, but one

NAMED_CLASSES = 10  # of those that int8 would hurt, on a card without int8

LOGGER = logging.getLogger(__name__)
Batches = list[NDArray[np.uint8]]


def build_bundle(
    fp32: bytes,
    recipe: Recipe,
    splits: Splits,
    root: Path,
    *,
    rules: PostprocessSpec | None = None,
) -> Bundled:
    """Write the next version of `root/NAME`.

    Args:
        fp32: graph with input `pixels` and output `logits`.
        recipe: name, labels, preprocessing, requirements.
        splits: validation for the rules and gates, calibration for int8 ranges, test
            for the figures where there is one (else they are validation's).
        root: the folder of models.
        rules: those to keep; None fits them.

    Raises:
        DataError, GraphError, BundleError: nothing has been written then.
    """
    validation = some_validation(splits)
    truth = truth_of(validation, recipe.task)
    LOGGER.info("rules and gates from %d validation images", len(validation))
    batches = in_pieces(validation.pixels(recipe.preprocess), size=BATCH)
    remarks = list(recipe.remarks)
    required: list[str] = []
    lines_of = partial(
        requirement_lines,
        truth=truth,
        task=recipe.task,
        config=recipe.config,
        scenes=validation.scenes,
    )
    graphs = {Precision.FP32: Built(stored(fp32, recipe, batches, remarks), None)}
    if rules is None:
        logits = run_finite(graphs[Precision.FP32].graph, batches)
        rules = fit_rules(
            logits,
            truth,
            recipe.task,
            recipe.config,
            labels=len(recipe.labels),
            scenes=validation.scenes,
        )
        remarks.append("Temperature and thresholds: fitted on validation")
        required = lines_of(logits, rules=rules)
        for line in required:
            LOGGER.info("%s", line)
        remarks += required + out_of_fold_f1_lines(
            logits, truth, rules, scenes=validation.scenes
        )
    made = smaller(fp32, recipe, splits, rules, batches, remarks)
    for precision, built in made.items() if required else ():
        own = lines_of(run(built.graph, batches), rules=rules)
        remarks += [f"{precision}: {line}" for line in own if line not in required]
    graphs |= made
    final = {p: Built(add_class_maps(b.graph), b.gate) for p, b in graphs.items()}
    kept = staying(recipe, final)
    remarks += [f"Not made anew: the {precision} graph" for precision in kept]
    final |= kept
    wanted = min(GOLDEN_IMAGES, max(1, GOLDEN_BYTES // prod(recipe.preprocess.shape)))
    some = validation.select(spread(len(validation), wanted))
    golden = make_golden(final, some.pixels(recipe.preprocess))
    manifest = write_manifest(
        recipe, rules, final, golden, next_version(root, recipe.name)
    )
    recipe = replace(recipe, remarks=tuple(remarks))
    return measured_bundle(manifest, final, golden, splits, root, recipe)


def some_validation(splits: Splits) -> Split:
    """The validation images. Raises DataError where there are none."""
    if not len(splits.validation):
        raise DataError(
            "there are no validation images, and the rules and gates of a bundle come "
            "from them; validation must be a share of train or a number above 0"
        )
    return splits.validation


def stored(fp32: bytes, recipe: Recipe, sample: Batches, remarks: list[str]) -> bytes:
    """The fp32 graph as it goes to disk; why it is not smaller becomes a remark."""
    if not recipe.config.half_storage:
        return fp32
    try:
        return store_weights_as_float16(fp32, sample[:4]).graph
    except GraphError as error:  # a graph that does not run at all fails again, later
        remarks.append(f"Weights are stored in fp32: {error}")
        LOGGER.warning("%s", remarks[-1])
        return fp32


def smaller(
    fp32: bytes,
    recipe: Recipe,
    splits: Splits,
    rules: PostprocessSpec,
    batches: Batches,
    remarks: list[str],
) -> dict[Precision, Built]:
    """The int8 and fp16 graphs that were wanted and passed; refusals become remarks."""
    found: dict[Precision, Built] = {}
    if recipe.config.int8:
        truth = truth_of(splits.validation, recipe.task)
        scenes = splits.validation.scenes
        remarks.append(calibrated(splits))
        try:
            int8 = gated_int8(
                fp32,
                in_pieces(splits.calibration.pixels(recipe.preprocess), size=BATCH),
                labelled=Labelled(
                    f"{splits.dataset.name} validation", batches, truth, scenes
                ),
                decide=lambda logits: decisions(logits, rules),
                answer=lambda logits: answers(logits, rules),
                unmet=lambda logits, int8: unmet(
                    *(logits, int8, truth, recipe.task, recipe.config, rules),
                    scenes=scenes,
                ),
            )
        except QuantizationError as error:
            remarks.append(f"{no_int8(recipe.earlier)}: {error}.")
            LOGGER.warning("%s", remarks[-1])
        else:
            if int8.graph is None:
                labels = [label.name for label in recipe.labels]
                remarks.append(refusal(int8, labels, earlier=recipe.earlier))
            else:
                found[Precision.INT8] = Built(int8.graph, int8.gate)
    if recipe.config.fp16:
        LOGGER.info("fp16: looking for the largest activation")
        some = [batches[i] for i in spread(len(batches), ACTIVATION_IMAGES // BATCH)]
        half, remark = half_as_exact(fp32, some)
        if half is None:
            remarks.append(f"{no_fp16(recipe)}: {remark}")
            LOGGER.warning("%s", remarks[-1])
        else:
            found[Precision.FP16] = Built(half, None)
            remarks.append(f"fp16: {remark}")
    return found


def half_as_exact(fp32: bytes, some: Batches) -> tuple[bytes | None, str]:
    """The fp16 graph, if it answers alike and will not overflow; what was seen."""
    largest, images = largest_activation(fp32, some), sum(map(len, some))
    seen = (
        f"activations reach {largest:,.0f} within {images:,} validation images; at "
        f"most {MAX_ACTIVATION:,.0f} are accepted, half of what fp16 holds"
    )
    if not largest <= MAX_ACTIVATION:
        return None, seen
    # in fp16 the head, which the maps come from, is not found any more
    half = to_float16(add_class_maps(fp32))
    lost = lost_in_float16(fp32, half, some[:COMPARED_BATCHES])
    return (half, seen) if lost is None else (None, lost)


def staying(recipe: Recipe, made: Container[Precision]) -> dict[Precision, Built]:
    """Earlier graphs that were not made anew; fp16 only where nobody asked for it.

    One that was asked for and not made would be wrong, and so would the earlier one.
    """
    gone = {Precision.FP16} if recipe.config.fp16 else set()
    return {
        precision: built
        for precision, built in recipe.earlier.items()
        if precision not in made and precision not in gone
    }


def refusal(
    int8: Gated, labels: Sequence[str], *, earlier: Container[Precision] = ()
) -> str:
    """Why no int8 graph was made, and which classes would have paid for one."""
    losses = {
        label: change
        for label, change in zip(labels, int8.change.tolist(), strict=True)
        if change < 0
    }
    worst = sorted(losses, key=losses.__getitem__)[:NAMED_CLASSES]
    listed = ", ".join(
        f"{code(label)} {100 * losses[label]:+.1f} points" for label in worst
    )
    paid = f" By class, accuracy would change: {listed}." if worst else ""
    return f"{no_int8(earlier)}: {int8.gate.reason}.{paid}"


def no_int8(earlier: Container[Precision]) -> str:
    """That there is none now; an earlier one stays."""
    return f"No {'new ' * (Precision.INT8 in earlier)}int8 graph"


def calibrated(splits: Splits) -> str:
    """How many images the ranges of int8 come from; what these lack is warned of.

    What lies outside of a range is cut off, of an image as of a whole label.
    """
    images, missing = len(splits.calibration), splits.uncalibrated
    parts = [f"int8: ranges from {images} calibration image{'s' * (images != 1)}"]
    if images < FEW_CALIBRATION_IMAGES:
        parts.append(
            f"give at least {FEW_CALIBRATION_IMAGES}, or ranges may be too narrow"
        )
    if missing:
        labels = f"{len(missing)} label{'s' * (len(missing) != 1)} of train"
        named = first_of([code(name) for name in missing])
        parts.append(f"they lack {labels}: {named}")
    line = "; ".join(parts)
    LOGGER.log(logging.WARNING if parts[1:] else logging.INFO, "%s", line)
    return line


def no_fp16(recipe: Recipe) -> str:
    """That there is none; an earlier one, which has the same weights, does not stay."""
    if Precision.FP16 not in recipe.earlier:
        return "No fp16 graph"
    version = recipe.provenance.optimizations[-1].version
    return f"Left out: the fp16 graph of version {version}"


def truth_of(split: Split, task: Task) -> Truth:
    """A split's labels as decisions: class index [N], or bool [N] or [N, K]."""
    sigmoid = task.activation == "sigmoid"
    return split.labels.astype(np.bool_ if sigmoid else np.int64)


def spread(total: int, wanted: int) -> NDArray[np.int64]:
    """Up to `wanted` positions, evenly over `total`."""
    return np.unique(np.linspace(0, total - 1, min(wanted, total)).astype(np.int64))
