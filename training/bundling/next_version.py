"""bundle + data → **the same model, smaller**: a next version with more graphs.

Labels, preprocessing and rules stay as they are; what is added must keep to them.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from classifier.bundle import Bundle, load_bundle
from classifier.manifest import Manifest, Precision, Task
from training.bundling.bundling import build_bundle
from training.bundling.draft import Recipe
from training.configs.task_sections import BundleConfig
from training.data import Dataset, Splits, cut, load_dataset
from training.data.dataset import Labels
from training.errors import DataError
from training.evaluation.evaluate import align
from training.evaluation.labelled import as_question


def optimize_bundle(
    path: Path,
    data: Path,
    *,
    int8: bool,
    fp16: bool,
    positive: tuple[str, ...] = (),
    seed: int = 0,
) -> Path:
    """Write the next version of the bundle beside it; returns its folder.

    Raises:
        BundleError: no such bundle, or it has no fp32 graph to start from.
        DataError: the data's labels are not the bundle's.
        GraphError: the graph cannot be quantized at all.
    """
    bundle = load_bundle(path)
    manifest = bundle.manifest
    fp32 = bundle.read_graph(bundle.graph(Precision.FP32))
    splits = splits_for(manifest, data, positive=positive, seed=seed)
    wishes = BundleConfig(
        description=manifest.description,
        license=manifest.provenance.license,
        source=manifest.provenance.source,
        int8=int8,
        fp16=fp16,
        half_storage=False,  # it is stored already as its maker wanted
    )
    recipe = Recipe(
        name=manifest.name,
        task=manifest.task,
        labels=manifest.labels,
        preprocess=manifest.preprocess,
        config=wishes,
        provenance=manifest.provenance,
        remarks=(origin(bundle),),
    )
    root = bundle.folder.parent.parent
    return build_bundle(fp32, recipe, splits, root, rules=manifest.postprocess).folder


def origin(bundle: Bundle) -> str:
    """A line for the card."""
    manifest = bundle.manifest
    return f"Optimized from {manifest.name}, version {manifest.version}"


def splits_for(
    manifest: Manifest, data: Path, *, positive: tuple[str, ...], seed: int
) -> Splits:
    """The data's splits, with labels counted as the bundle counts them.

    A data set without a test split keeps validation for its figures.
    """
    wanted = True if manifest.task is Task.MULTILABEL else None
    dataset = load_dataset(data, multi_label=wanted)
    if manifest.task is Task.BINARY:
        dataset = as_question(dataset, manifest, positive)
    if len(dataset.parts["train"]) < 2:  # noqa: PLR2004 - one to look at, one to keep
        raise DataError(f"{data} has too few images to optimize by")
    return cut(counted_as(dataset, manifest), seed=seed)


def counted_as(dataset: Dataset, manifest: Manifest) -> Dataset:
    """The data set with the bundle's labels in the bundle's order."""

    def counted(labels: Labels) -> Labels:
        aligned = align(labels, dataset, manifest)
        if dataset.multi_label:
            return aligned.astype(np.uint8)
        return aligned.astype(np.int64)

    parts = {
        name: replace(part, labels=counted(part.labels))
        for name, part in dataset.parts.items()
    }
    return replace(
        dataset,
        label_names=tuple(label.id for label in manifest.labels),
        groups=tuple(label.group for label in manifest.labels),
        parts=parts,
    )
