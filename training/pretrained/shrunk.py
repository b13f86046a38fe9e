"""published network + photos → **graphs**: exported, shrunk behind a gate, measured."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifier.golden import Golden
from classifier.manifest import Gate, GraphVariant, MetricSet, Precision
from classifier.session import Session
from training.bundling.draft import Built, file_name, variant_of
from training.graphs.class_maps import add_class_maps
from training.graphs.export import export_graph
from training.networks.efficientnet_lite import EfficientNetLite
from training.pretrained.photos import Photos
from training.pretrained.published import CLASSES, MEAN, STD, Published
from training.quantization.float16 import store_weights_as_float16
from training.quantization.gate import Pixels, gated_int8

# Largest |logit error| at replay. fp32: other processors sum in another order. int8: a
# sum that falls on the other side of a rounding step is worth about 0.1 logit; the
# saturating arithmetic of processors without VNNI is worth several and is refused.
TOLERANCE = {Precision.FP32: 0.01, Precision.INT8: 0.5}


@dataclass(frozen=True)
class Shrunk:
    """The graphs of a bundle, and what was measured on each."""

    graphs: dict[str, bytes]  # file → ONNX
    variants: tuple[GraphVariant, ...]
    golden: Golden
    stored_error: float  # largest |logit error| of storing the weights in fp16
    int8_gate: Gate  # also where int8 did not pass and is not among the graphs


def shrink(network: EfficientNetLite, published: Published, photos: Photos) -> Shrunk:
    """Export; store fp16 weights; quantize behind the gate; add class maps; measure.

    Raises:
        GraphError: a stage fails.
    """
    fp32 = export_graph(
        network,
        shape=published.spec.shape,
        mean=MEAN,
        std=STD,
        classes=CLASSES,
    )
    stored, stored_error = store_weights_as_float16(fp32, photos.labelled.batches)
    int8 = gated_int8(
        fp32,
        photos.calibration,
        labelled=photos.labelled,
        unlabelled=photos.unlabelled,
    )
    made = {Precision.FP32: Built(add_class_maps(stored), None)}
    if int8.graph is not None:
        made[Precision.INT8] = Built(add_class_maps(int8.graph), int8.gate)
    graphs, variants, logits = {}, [], {}
    for precision, built in made.items():
        session = Session.load(built.graph)
        graphs[file_name(precision)] = built.graph
        logits[precision] = session.run(photos.golden)
        variants.append(
            variant_of(
                precision,
                built,
                tolerance=TOLERANCE[precision],
                metrics=measure_accuracy(session, photos),
            )
        )
    golden = Golden(photos.golden, logits)
    return Shrunk(graphs, tuple(variants), golden, stored_error, int8.gate)


def measure_accuracy(session: Session, photos: Photos) -> tuple[MetricSet, ...]:
    """Top-1 and top-5 on the labelled photos, on the graph that is served."""
    labelled = photos.labelled
    logits = run_batches(session, list(labelled.batches))
    truth = np.asarray(labelled.truth)[:, None]
    ranked = np.argsort(-logits, axis=1, kind="stable")
    values = {
        f"top_{k}": float(np.mean((ranked[:, :k] == truth).any(axis=1))) for k in (1, 5)
    }
    return (
        MetricSet(dataset=labelled.dataset, split="all", n=len(truth), values=values),
    )


def run_batches(session: Session, batches: list[Pixels]) -> NDArray[np.float32]:
    """Batch after batch → logits float32 [ΣN, K]."""
    return np.concatenate([session.run(batch) for batch in batches])
