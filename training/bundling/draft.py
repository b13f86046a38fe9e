"""rules + graphs → **draft**: manifest and golden examples, still without figures."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from classifier.bundle import taken_versions
from classifier.golden import Golden
from classifier.manifest import (
    NAME_RULE,
    Gate,
    GraphVariant,
    Label,
    Manifest,
    MetricSet,
    Name,
    PostprocessSpec,
    Precision,
    PreprocessSpec,
    Provenance,
    Task,
)
from training.configs.task_sections import BundleConfig
from training.data.pieces import in_pieces
from training.errors import ConfigError
from training.graphs.graph import run

# |logit error| allowed at load, as a part of the largest logit: rounding of another
# processor's fp32, its fp16, and the few int8 steps that roundings upstream can flip.
TOLERANCE = {Precision.FP32: 1e-3, Precision.FP16: 2e-2, Precision.INT8: 1e-1}


@dataclass(frozen=True)
class Built:
    """A graph in one precision, and the gate it passed where it had to."""

    graph: bytes
    gate: Gate | None


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
    # smaller graphs of an earlier version, which stay where none is made anew
    earlier: Mapping[Precision, Built] = field(default_factory=dict)


def make_golden(graphs: Mapping[Precision, Built], pixels: NDArray[np.uint8]) -> Golden:
    """Some images and what each graph answers to them, one at a time."""
    singles = in_pieces(pixels, size=1)
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
        variant_of(
            precision,
            built,
            tolerance=tolerance_of(precision, golden.logits[precision]),
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


def tolerance_of(precision: Precision, logits: NDArray[np.float32]) -> float:
    """The |logit error| that a load allows, of golden logits float32 [N, K]."""
    return TOLERANCE[precision] * max(1.0, float(np.abs(logits).max()))


def variant_of(
    precision: Precision,
    built: Built,
    *,
    tolerance: float,
    metrics: tuple[MetricSet, ...] = (),
) -> GraphVariant:
    """A graph's entry in the manifest; `tolerance` is that of its golden logits."""
    return GraphVariant(
        precision=precision,
        file=file_name(precision),
        sha256=hashlib.sha256(built.graph).hexdigest(),
        golden_tolerance=tolerance,
        gate=built.gate,
        metrics=metrics,
    )


def check_name(name: str) -> None:
    """Refuse now what the manifest would refuse after minutes of work.

    Raises:
        ConfigError: no bundle can be called so.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise ConfigError(
            f"the bundle cannot be called {name!r}: {NAME_RULE}"
        ) from error


def next_version(root: Path, name: str) -> int:
    """One more than the newest version of `root/NAME` that there is.

    Also of those without a manifest: none is written over.
    """
    return max(taken_versions(root / name), default=0) + 1


def file_name(precision: Precision) -> str:
    """`model.int8.onnx` and the like."""
    return f"model.{precision}.onnx"
