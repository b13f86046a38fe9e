"""A bundle of a small graph that pools globally, made without a training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from classifier.manifest import Manifest
from tests.synthetic import manifest_fields
from tests.training.data.pictures import write_tree
from tests.training.quantization.nets import SIDE, net
from training.bundling.bundling import build_bundle
from training.bundling.draft import Recipe
from training.bundling.labels import bundle_labels
from training.configs.task_sections import BundleConfig
from training.data import cut, load_dataset


def pooled_bundle(
    tmp_path: Path,
    config: BundleConfig,
    *,
    graph: bytes | None = None,
    images: int = 20,
    pairs: bool = False,
) -> Path:
    """`models/colors` as the config wants it, beside its `photos`.

    `images` are those of a color, in scenes of two where they are `pairs`.
    """
    colors = dict.fromkeys(("blue", "green", "red"), images)
    dataset = load_dataset(write_tree(tmp_path / "photos", colors))
    if pairs:
        train = replace(dataset.train, scenes=np.arange(len(dataset.train)) // 2)
        dataset = replace(dataset, parts=dataset.parts | {"train": train})
    splits = cut(dataset)
    fields = manifest_fields("colors", side=SIDE)
    manifest = Manifest.model_validate_json(json.dumps(fields))
    recipe = Recipe(
        name="colors",
        task=manifest.task,
        labels=bundle_labels(splits.dataset, manifest.task),
        preprocess=manifest.preprocess,
        config=config,
        provenance=manifest.provenance,
    )
    graph = graph or net(classes=3).SerializeToString()
    return build_bundle(graph, recipe, splits, tmp_path / "models").folder.parent
