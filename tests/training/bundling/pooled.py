"""A bundle of a small graph that pools globally, made without a training."""

import json
from pathlib import Path

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
    tmp_path: Path, config: BundleConfig, *, graph: bytes | None = None
) -> Path:
    """`models/colors` as the config wants it, beside its `photos`."""
    photos = write_tree(tmp_path / "photos", {"blue": 20, "green": 20, "red": 20})
    splits = cut(load_dataset(photos))
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
