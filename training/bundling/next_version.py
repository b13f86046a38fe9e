"""bundle + data → **the same model, smaller**: a next version with more graphs.

Labels, preprocessing and rules stay as they are; what is added must keep to them. A
graph that is not made anew stays too.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from classifier.bundle import Bundle, load_bundle
from classifier.errors import BundleError, SessionError
from classifier.golden import replay
from classifier.manifest import Manifest, Optimization, Precision, Provenance
from classifier.session import Session
from training.bundling.bundling import build_bundle
from training.bundling.draft import Built, Recipe
from training.configs.config import Config
from training.configs.sections import DEFAULT_VALIDATION
from training.configs.task_sections import BundleConfig
from training.data import Dataset, Splits, cut, load_dataset
from training.data.dataset import Labels
from training.data.splits import HeldOut
from training.evaluation.evaluate import align
from training.evaluation.labelled import as_question, several_labels
from training.files import try_folder
from training.graphs.class_maps import drop_class_maps
from training.loop.runs import open_splits
from training.provenance import circumstances, command_line

LOGGER = logging.getLogger(__name__)

HELD_OUT = "Validation: the images that the training had held out"


@dataclass(frozen=True)
class DataSource:
    """Labelled images, and how they are read.

    With the config that trained the bundle they are split as they were then, and `path`
    is the folder of data sets. Without one, `validation` and `seed` cut the validation
    images off train, where the data has none of its own.
    """

    path: Path
    config: Config | None = None
    positive: tuple[str, ...] = ()  # labels that mean yes to a binary bundle
    validation: HeldOut = DEFAULT_VALIDATION
    seed: int = 0


def optimize_bundle(path: Path, data: DataSource, *, int8: bool, fp16: bool) -> Path:
    """Write the next version of the bundle beside it; returns its folder.

    Raises:
        BundleError: no such bundle, or it has no fp32 graph to start from.
        ConfigError: the data does not fit the config.
        DataError: the data's labels are not the bundle's.
        DiskError: no folder can be made beside the bundle.
        GraphError: the graph cannot be quantized at all.
    """
    bundle = load_bundle(path)
    manifest, root = bundle.manifest, bundle.folder.parent.parent
    try_folder(root / manifest.name)
    # build_bundle gives class maps back, to smaller graphs too
    fp32 = drop_class_maps(bundle.read_graph(bundle.graph(Precision.FP32)))
    earlier, left_out = smaller_graphs(bundle)
    splits = splits_for(manifest, data)
    wishes = BundleConfig(
        description=manifest.description,
        int8=int8,
        fp16=fp16,
        half_storage=False,  # it is stored already as its maker wanted
        # where the earlier version shows no test images, the next does not either
        mistakes=(bundle.folder / "mistakes.jpg").exists(),
    )
    recipe = Recipe(
        name=manifest.name,
        task=manifest.task,
        labels=manifest.labels,
        preprocess=manifest.preprocess,
        config=wishes,
        provenance=provenance(bundle, splits),
        remarks=(
            f"Temperature and thresholds: as in version {manifest.version}",
            told_unseen(manifest, splits, by_config=data.config is not None),
            *left_out,
        ),
        earlier=earlier,
    )
    return build_bundle(fp32, recipe, splits, root, rules=manifest.postprocess).folder


def smaller_graphs(bundle: Bundle) -> tuple[dict[Precision, Built], list[str]]:
    """Those that can stay, and a line for the card on each that cannot.

    Golden logits are taken anew. Of a graph that answers differently here than where it
    was made they would hide that from every load.

    Raises:
        BundleError: a graph or the golden examples cannot be read.
    """
    golden = bundle.read_golden()
    staying: dict[Precision, Built] = {}
    left_out = []
    for variant in bundle.manifest.graphs:
        if variant.precision is Precision.FP32:
            continue
        graph = bundle.read_graph(variant)
        try:
            replay(golden, Session.load(graph), variant)
        except (BundleError, SessionError) as error:
            of = f"the {variant.precision} graph of version {bundle.manifest.version}"
            left_out.append(f"Left out: {of}: {error}")
            LOGGER.warning("left out: %s: %s", of, error)
        else:
            staying[variant.precision] = Built(graph, variant.gate)
    return staying, left_out


def provenance(bundle: Bundle, splits: Splits) -> Provenance:
    """How the network came about, as before, and what is done now."""
    now = circumstances(command_line())
    optimization = Optimization(
        version=bundle.manifest.version,
        command=now["command"],
        commit=now["commit"],
        data_sha256={
            "calibration": splits.calibration.sha256(),
            "validation": splits.validation.sha256(),
        },
        versions=now["versions"],
        hardware=now["machine"],
        created=now["measured"],
    )
    before = bundle.manifest.provenance
    optimizations = (*before.optimizations, optimization)
    return before.model_copy(update={"optimizations": optimizations})


def told_unseen(manifest: Manifest, splits: Splits, *, by_config: bool) -> str:
    """`unseen`, which whoever waits for the figures hears too, unless all is well."""
    line = unseen(manifest, splits, by_config=by_config)
    if line != HELD_OUT:
        LOGGER.warning("%s", line)
    return line


def unseen(manifest: Manifest, splits: Splits, *, by_config: bool = False) -> str:
    """A line for the card: whether the gate's images were kept from the training.

    A gate that judges by images which the network has learned is too kind, and so are
    all figures of them. `by_config`: the config of the training has cut them.
    """
    recorded = manifest.provenance.data_sha256.get("validation")
    if recorded is None:
        return (
            "Validation: it is not recorded which images the training had held out; "
            "where it has learned some of these, the gates and all figures of "
            "validation flatter"
        )
    if splits.validation.sha256() == recorded:
        return HELD_OUT
    if by_config:
        return (
            "Validation: not the images that the training had held out, although its "
            "config cut them: the data has changed since. It may have learned some of "
            "these, and of a test split that is cut too; gates and figures flatter then"
        )
    return (
        "Validation: not the images that the training had held out, so that it may "
        "have learned some of them; the gates and all figures of validation flatter "
        "then. `--config` with the config of the training cuts the same"
    )


def splits_for(manifest: Manifest, data: DataSource) -> Splits:
    """The data's splits, with labels counted as the bundle counts them.

    A data set without a test split keeps validation for its figures.
    """
    if data.config is not None:
        splits = open_splits(data.config, data.path)
        return splits.relabelled(lambda d: counted_as(d, manifest, data.positive))
    multi_label = several_labels(manifest.task)
    dataset = load_dataset(data.path, multi_label=multi_label)
    counted = counted_as(dataset, manifest, data.positive)
    return cut(counted, validation=data.validation, seed=data.seed)


def counted_as(
    dataset: Dataset, manifest: Manifest, positive: tuple[str, ...] = ()
) -> Dataset:
    """The data set with the bundle's labels in the bundle's order."""
    dataset = as_question(dataset, manifest, positive)

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
