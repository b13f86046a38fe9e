"""file + answers + photos → **models/NAME/VERSION**: the import from end to end."""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from pydantic import ValidationError

from classifier.bundle import write_bundle
from classifier.errors import ImageError
from classifier.golden import Golden
from classifier.hardware import describe
from classifier.manifest import (
    GraphVariant,
    Manifest,
    PostprocessSpec,
    Precision,
    PreprocessSpec,
    Provenance,
    describe_problems,
)
from classifier.preprocess import preprocess
from classifier.session import Session
from classifier.versions import versions
from training.bundling.draft import (
    Built,
    next_version,
    tolerance_of,
    variant_of,
)
from training.errors import AnswerError
from training.foreign.answers import Answers
from training.foreign.facts import Facts, settle
from training.foreign.findings import examine
from training.foreign.source import Foreign
from training.foreign.verify import verify
from training.foreign.wrap import wrap
from training.graphs.class_maps import add_class_maps
from training.graphs.graph import parse

MAX_SAMPLES = 16
GOLDEN_BYTES = 4 * 2**20  # of pixels; as many samples become golden, but at least one
# Operators that compute with whole numbers; those of one weight alone do not.
OF_INTEGERS = re.compile(r"Quantize|QLinear|QGemm|Integer")
PACKAGES = ("numpy", "pillow", "cykooz-resizer", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Origin:
    """What the bundle says of where it comes from."""

    file: Path
    name: str
    description: str
    license: str
    source: str
    command: str


def import_graph(
    foreign: Foreign,
    answers: Answers,
    origin: Origin,
    *,
    samples: Sequence[Path] | None,
    models: Path,
) -> Path:
    """Write the next version of a bundle and return its folder.

    `samples` are photos for proof and golden; None takes synthetic pixels.

    Raises:
        MissingFactsError: with every question that is still open.
        GraphError: the graph is refused.
        AnswerError: an answer is.
        BundleError: the disk refuses.
    """
    started_s = time.perf_counter()
    facts = settle(examine(foreign.model), answers)
    wrapped = add_class_maps(wrap(foreign.model, facts))
    pixels = synthetic(facts.spec) if samples is None else read(samples, facts.spec)
    error = verify(foreign.original, wrapped, facts, pixels)
    logits = Session.load(wrapped).run(pixels)
    replayed = max(1, GOLDEN_BYTES // prod(facts.spec.shape))
    precision = find_precision(wrapped)
    variant = variant_of(
        precision, Built(wrapped, None), tolerance=tolerance_of(precision, logits)
    )
    version = next_version(models, origin.name)
    seconds = time.perf_counter() - started_s
    with _as_answers():
        provenance = _provenance(foreign, origin, seconds)
        manifest = _manifest(facts, origin, variant, provenance, version=version)
    return write_bundle(
        models,
        manifest,
        graphs={variant.file: wrapped},
        golden=Golden(pixels[:replayed], {precision: logits[:replayed]}),
        card=write_card(manifest, facts, error, len(pixels), real=samples is not None),
    )


def read(samples: Sequence[Path], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Up to `MAX_SAMPLES` photos as pixels, uint8 [n, H, W, C].

    Raises:
        AnswerError: there is none, or one cannot be read.
    """
    if not samples:
        raise AnswerError(
            "at least one photo is needed for proof and golden (--samples); "
            "--synthetic does without"
        )
    pixels = []
    for path in samples[:MAX_SAMPLES]:
        try:
            pixels.append(preprocess(path.read_bytes(), spec).pixels)
        except (OSError, ImageError) as error:
            raise AnswerError(f"cannot read the sample {path}: {error}") from error
    return np.stack(pixels)


def synthetic(spec: PreprocessSpec) -> NDArray[np.uint8]:
    """A slope, stripes and noise, uint8 [3, H, W, C]; seeded."""
    height, width, channels = spec.shape
    y, x = np.mgrid[:height, :width]
    slope = (255 * (x + y) / max(1, height + width - 2)).astype(np.uint8)
    stripes = np.where((x // 8) % 2, 230, 25).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    gray = np.stack([slope, stripes, noise])[..., None]
    # channels differ, or swapped ones would go unnoticed
    return np.concatenate([np.roll(gray, 3 * c, axis=2) for c in range(channels)], -1)


def find_precision(graph: bytes) -> Precision:
    """The arithmetic of a graph, by its operators and its weights.

    Weights that are only stored in fp16, and cast before they are used, are of fp32.
    """
    found = parse(graph).graph
    if any(OF_INTEGERS.search(node.op_type) for node in found.node):
        return Precision.INT8
    weights = {tensor.name: tensor for tensor in found.initializer}
    weights |= {
        node.output[0]: value.t
        for node in found.node
        if node.op_type == "Constant"
        for value in node.attribute
        if value.name == "value"
    }
    used = {n for node in found.node if node.op_type != "Cast" for n in node.input}
    sizes = Counter[int]()
    for name, tensor in weights.items():
        kind = int(tensor.data_type) if name in used else int(TensorProto.FLOAT)
        sizes[kind] += int(np.prod(tensor.dims))
    half = sizes[TensorProto.FLOAT16] > sizes[TensorProto.FLOAT]
    return Precision.FP16 if half else Precision.FP32


@contextmanager
def _as_answers() -> Iterator[None]:
    """What no manifest can hold was said by the user, or by the graph."""
    try:
        yield
    except ValidationError as error:
        problems = describe_problems(error)
        raise AnswerError(f"no bundle can be made of this: {problems}") from error


def _manifest(
    facts: Facts,
    origin: Origin,
    variant: GraphVariant,
    provenance: Provenance,
    *,
    version: int,
) -> Manifest:
    return Manifest(
        schema_version=1,
        name=origin.name,
        version=version,
        description=origin.description,
        task=facts.task,
        labels=facts.labels,
        preprocess=facts.spec,
        postprocess=_postprocess(facts),
        graphs=(variant,),
        provenance=provenance,
    )


def _postprocess(facts: Facts) -> PostprocessSpec:
    return PostprocessSpec(
        activation=facts.task.activation,
        temperature=1.0,
        thresholds=facts.thresholds,
        top_k=facts.top_k,
        abstain_threshold=None,
    )


def _provenance(foreign: Foreign, origin: Origin, seconds: float) -> Provenance:
    return Provenance(
        command=origin.command,
        config=None,
        commit=None,
        data_sha256=foreign.sha256,
        versions=versions(PACKAGES),
        hardware=describe(),
        seconds=round(seconds, 1),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        license=origin.license,
        source=origin.source,
    )


def write_card(
    manifest: Manifest, facts: Facts, error: float, samples: int, *, real: bool
) -> str:
    """What is known of an imported network, Markdown."""
    kind = "photos" if real else "synthetic images (no photo was given)"
    normalization = "inside the graph as it came"
    if facts.normalization is not None:
        white, mean, std = facts.normalization
        order = "BGR" if facts.reverse else facts.spec.color
        normalization = f"white is {white:g}, mean {mean}, std {std}, {order}"
    return f"""# {manifest.name}, version {manifest.version}

{manifest.description}

Imported from an ONNX file. Nothing is known of its accuracy: it has not been measured
here. `linnaeus evaluate` measures it on a data set.

- Task: {manifest.task}, {len(manifest.labels)} labels
- Images: {facts.spec.resize} to {facts.spec.width}x{facts.spec.height},
  {facts.spec.interpolation}
- Normalization: {normalization}
- The file's scores: {facts.scores} of {facts.classes} outputs
- Proof: the wrapped graph agrees with the original on {samples} {kind} to
  {error:.1e} of the largest score.

Source: {manifest.provenance.source}
Licence: {manifest.provenance.license}
"""
