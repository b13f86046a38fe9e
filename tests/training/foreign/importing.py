"""How the tests of import say what they know, and what they compare with."""

from io import BytesIO

import numpy as np
from onnx import ModelProto, NodeProto
from PIL import Image

from classifier import Classifier
from tests.training.foreign.strangers import SIDE, photo

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SAID = {
    "scale": "1",
    "mean": "0.5,0.4,0.3",
    "std": "0.2,0.25,0.3",
    "color": "rgb",
    "resize": "squash",
    "interpolation": "bilinear",
    "task": "multiclass",
}


def expected_input(pixels, layout: str, dtype: str, *, white=1.0):
    """Normalization as the stranger's trainer did it, [1, …]."""
    image = pixels
    if dtype != "uint8":
        image = ((pixels * (white / 255) - np.array(MEAN)) / np.array(STD)).astype(
            dtype
        )
    return (image.transpose(2, 0, 1) if layout == "NCHW" else image)[None]


def shrunk() -> np.ndarray:
    """A photo of the network's own size, so that resizing changes nothing."""
    return photo(3, SIDE)


def png(pixels) -> bytes:
    """A lossless file."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def answer(classifier: Classifier, pixels) -> np.ndarray:
    """Scores in the order of the labels."""
    k = len(classifier.manifest.labels)
    predictions = classifier.classify(png(pixels), top_k=k).predictions
    return np.array([p.score for p in sorted(predictions, key=lambda p: p.index)])


def ending_in(model: ModelProto, *nodes: NodeProto) -> ModelProto:
    """Its last tensor, now `l`, goes through some more nodes to `logits`."""
    model.graph.node[-1].output[0] = "l"
    model.graph.node.extend(nodes)
    return model
