"""fp32 graph + splits → **bundle**: rules, smaller graphs, golden, figures, card.

The order matters: the rules are fitted on the graph that is served, smaller graphs are
judged by those rules, and the test split is opened last, through `classifier/`, for all
graphs at once. The bundle appears whole or not at all.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier import Classifier
from classifier.bundle import list_versions, write_bundle
from classifier.golden import Golden
from classifier.manifest import (
    Gate,
    GraphVariant,
    Label,
    Manifest,
    MetricSet,
    PostprocessSpec,
    Precision,
    PreprocessSpec,
    Provenance,
    Task,
)
from training.configs.task_sections import BundleConfig
from training.data import Splits
from training.data.dataset import Split
from training.evaluation.evaluate import Evaluation, Truth, evaluate
from training.graphs.class_maps import add_class_maps
from training.graphs.graph import run
from training.quantization.float16 import store_weights_as_float16, to_float16
from training.quantization.gate import Labelled, gated_int8
from training.reports.card import CardFacts, write_card
from training.reports.mistakes import draw_sheet, worst_mistakes
from training.reports.plots import draw_all
from training.rules.rules import decisions, fit_rules

BATCH = 16
GOLDEN_IMAGES = 4
AGREEMENT_IMAGES = 300  # of train, without their labels, besides all of validation

# |logit error| allowed at load, as a part of the largest logit: rounding of another
# processor's fp32, its fp16, and the few int8 steps that roundings upstream can flip.
TOLERANCE = {Precision.FP32: 1e-3, Precision.FP16: 2e-2, Precision.INT8: 1e-1}

Batches = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Recipe:
    """What a bundle is, apart from what is fitted and measured here."""

    name: str
    task: Task
    labels: tuple[Label, ...]
    preprocess: PreprocessSpec
    config: BundleConfig
    provenance: Provenance
    remarks: tuple[str, ...] = ()  # lines for the card, such as how it was trained


@dataclass(frozen=True)
class Built:
    """A graph in one precision, and the gate it passed where it had to."""

    graph: bytes
    gate: Gate | None


def build_bundle(
    fp32: bytes,
    recipe: Recipe,
    splits: Splits,
    root: Path,
    *,
    rules: PostprocessSpec | None = None,
) -> Path:
    """Write the next version of `root/NAME` and return its folder.

    Args:
        fp32: graph with input `pixels` and output `logits`.
        recipe: name, labels, preprocessing, wishes.
        splits: validation for the rules and gates, calibration for int8 ranges, test
            for the figures where there is one (else they are validation's).
        root: the folder of models.
        rules: those to keep; None fits them.

    Raises:
        DataError, GraphError, BundleError: nothing has been written then.
    """
    validation = splits.validation
    truth = truth_of(validation, recipe.task)
    batches = batched(validation.pixels(recipe.preprocess))
    graphs = {Precision.FP32: Built(stored(fp32, recipe, batches), None)}
    if rules is None:
        logits = run(graphs[Precision.FP32].graph, batches)
        rules = fit_rules(
            logits, truth, recipe.task, recipe.config, labels=len(recipe.labels)
        )
    remarks = list(recipe.remarks)
    graphs |= smaller(fp32, recipe, splits, rules, batches, remarks)
    final = {p: Built(add_class_maps(b.graph), b.gate) for p, b in graphs.items()}
    some = validation.select(spread(len(validation), GOLDEN_IMAGES))
    golden = make_golden(final, some.pixels(recipe.preprocess))
    manifest = write_manifest(recipe, rules, final, golden, next_version(root, recipe))
    return measured_bundle(manifest, final, golden, splits, root, remarks)


def stored(fp32: bytes, recipe: Recipe, sample: Batches) -> bytes:
    """The fp32 graph as it goes to disk."""
    if not recipe.config.half_storage:
        return fp32
    return store_weights_as_float16(fp32, sample[:4]).graph


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
        some = splits.train.select(spread(len(splits.train), AGREEMENT_IMAGES))
        truth = truth_of(splits.validation, recipe.task)
        graph, gate = gated_int8(
            fp32,
            batched(splits.calibration.pixels(recipe.preprocess)),
            labelled=Labelled(f"{splits.dataset.name} validation", batches, truth),
            unlabelled=batched(some.pixels(recipe.preprocess)),
            decide=lambda logits: decisions(logits, rules),
        )
        if graph is None:
            remarks.append(f"No int8 graph: {gate.reason}.")
        else:
            found[Precision.INT8] = Built(graph, gate)
    if recipe.config.fp16:
        found[Precision.FP16] = Built(to_float16(fp32), None)
    return found


def make_golden(graphs: Mapping[Precision, Built], pixels: NDArray[np.uint8]) -> Golden:
    """Some images and what each graph answers to them, one at a time."""
    singles = [pixels[i : i + 1] for i in range(len(pixels))]
    return Golden(pixels, {p: run(built.graph, singles) for p, built in graphs.items()})


def write_manifest(
    recipe: Recipe,
    rules: PostprocessSpec,
    graphs: Mapping[Precision, Built],
    golden: Golden,
    version: int,
) -> Manifest:
    """The manifest, without figures yet."""
    variants = tuple(
        GraphVariant(
            precision=precision,
            file=file_name(precision),
            sha256=hashlib.sha256(built.graph).hexdigest(),
            golden_tolerance=TOLERANCE[precision]
            * max(1.0, float(np.abs(golden.logits[precision]).max())),
            gate=built.gate,
            metrics=(),
        )
        for precision, built in graphs.items()
    )
    return Manifest(
        schema_version=1,
        name=recipe.name,
        version=version,
        description=recipe.config.description,
        task=recipe.task,
        labels=recipe.labels,
        preprocess=recipe.preprocess,
        postprocess=rules,
        graphs=variants,
        provenance=recipe.provenance,
    )


def measured_bundle(
    manifest: Manifest,
    graphs: Mapping[Precision, Built],
    golden: Golden,
    splits: Splits,
    root: Path,
    remarks: list[str],
) -> Path:
    """Evaluate the bundle as it will be loaded, then write it with its figures."""
    files = {file_name(p): built.graph for p, built in graphs.items()}
    split = splits.test if splits.has_test else splits.validation
    with tempfile.TemporaryDirectory(prefix="linnaeus-bundle-") as folder:
        draft = write_bundle(
            Path(folder), manifest, graphs=files, golden=golden, card=""
        )
        evaluations = {
            precision: evaluate(
                Classifier.load(draft, precision=precision, device="cpu"),
                splits.dataset,
                split,
            )
            for precision in graphs
        }
    manifest = with_metrics(manifest, evaluations)
    reference = evaluations[Precision.FP32]
    pictures = draw_all(reference)
    sheet = draw_sheet(worst_mistakes(reference), split, manifest.preprocess)
    if sheet is not None:
        pictures["mistakes.jpg"] = sheet
    facts = CardFacts(manifest, evaluations, tuple(remarks), tuple(sorted(pictures)))
    return write_bundle(
        root,
        manifest,
        graphs=files,
        golden=golden,
        card=write_card(facts),
        extras=pictures,
    )


def with_metrics(
    manifest: Manifest, evaluations: Mapping[Precision, Evaluation]
) -> Manifest:
    """The manifest with what each graph reached."""
    variants = tuple(
        variant.model_copy(
            update={"metrics": (metric_set(evaluations[variant.precision]),)}
        )
        for variant in manifest.graphs
    )
    return manifest.model_copy(update={"graphs": variants})


def metric_set(evaluation: Evaluation) -> MetricSet:
    """The figures of one evaluation, to six digits."""
    values = {name: round(value, 6) for name, value in evaluation.metrics.items()}
    return MetricSet(
        dataset=evaluation.dataset,
        split=evaluation.split,
        n=evaluation.n,
        values=values,
    )


def truth_of(split: Split, task: Task) -> Truth:
    """A split's labels as decisions: class index [N], or bool [N] or [N, K]."""
    sigmoid = task in (Task.BINARY, Task.MULTILABEL)
    return split.labels.astype(np.bool_ if sigmoid else np.int64)


def batched(pixels: NDArray[np.uint8]) -> Batches:
    """uint8 [N, H, W, C] in pieces of 16."""
    return [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)]


def spread(total: int, wanted: int) -> NDArray[np.int64]:
    """Up to `wanted` positions, evenly over `total`."""
    return np.unique(np.linspace(0, total - 1, min(wanted, total)).astype(np.int64))


def next_version(root: Path, recipe: Recipe) -> int:
    """One more than the newest version that there is."""
    return max(list_versions(root / recipe.name), default=0) + 1


def file_name(precision: Precision) -> str:
    """`model.int8.onnx` and the like."""
    return f"model.{precision}.onnx"
