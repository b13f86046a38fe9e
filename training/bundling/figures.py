"""draft → **bundle**: evaluated as it will be loaded, then written with its figures."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier import Classifier
from classifier.bundle import write_bundle
from classifier.golden import Golden
from classifier.manifest import Manifest, MetricSet, Precision
from training.bundling.draft import Built, Recipe, file_name
from training.data import Splits
from training.evaluation.evaluate import Evaluation, evaluate
from training.reports.card import CardFacts, write_card
from training.reports.mistakes import all_mistakes, draw_sheet
from training.reports.plots import draw_all

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundled:
    """A bundle that was written, and how each of its graphs was measured."""

    folder: Path
    manifest: Manifest
    evaluations: Mapping[Precision, Evaluation]

    def as_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        graphs = {}
        for variant in self.manifest.graphs:
            file = self.folder / variant.file
            graphs[str(variant.precision)] = {
                "bytes": file.stat().st_size,
                "sha256": variant.sha256,
                "gate": variant.gate and variant.gate.model_dump(mode="json"),
                **self.evaluations[variant.precision].as_json(),
            }
        return {
            "bundle": self.manifest.full_name,
            "task": str(self.manifest.task),
            "postprocess": self.manifest.postprocess.model_dump(mode="json"),
            **graphs,
        }


def measured_bundle(
    manifest: Manifest,
    graphs: Mapping[Precision, Built],
    golden: Golden,
    splits: Splits,
    root: Path,
    recipe: Recipe,
) -> Bundled:
    """Evaluate the bundle as it will be loaded, then write it with its figures."""
    files = {file_name(p): built.graph for p, built in graphs.items()}
    split = splits.test if splits.has_test else splits.validation
    listed = ", ".join(graphs)
    LOGGER.info("measuring %s on %d %s images", listed, len(split), split.name)
    with tempfile.TemporaryDirectory(prefix="linnaeus-bundle-") as scratch:
        draft = write_bundle(
            Path(scratch), manifest, graphs=files, golden=golden, card=""
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
    if recipe.config.mistakes:
        sheet = draw_sheet(all_mistakes(reference), split, manifest.preprocess)
        if sheet is not None:
            pictures["mistakes.jpg"] = sheet
    facts = CardFacts(manifest, evaluations, recipe.remarks, tuple(sorted(pictures)))
    folder = write_bundle(
        root,
        manifest,
        graphs=files,
        golden=golden,
        card=write_card(facts),
        extras=pictures,
    )
    return Bundled(folder, manifest, evaluations)


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
