"""manifest + measurements → **card** of an ImageNet bundle, Markdown."""

from classifier.manifest import Gate, GraphVariant, Manifest
from training.pretrained.photos import Photos
from training.pretrained.shrunk import Shrunk

SUBJECTS = """\
It names the main object of a photo, out of ImageNet's 1,000
classes: animals (118 breeds of dog among them), plants, food, vehicles, tools, places.\
"""

READING = """\
## How to read its answers

- It always answers with one of its classes. A person, a plain wall or a drawing gets
  the class that resembles it most: look at the score.
- Scores are those of the network, temperature 1. They have not been calibrated.
- One label a photo: of several objects it names one.
- Names are the first word or phrase of each WordNet synset: a pig is a "hog". Some
  classes can hardly be told apart ("maillot" and "maillot, tank suit").
- ImageNet's photos come from the web of about 2010 and show the world unevenly. Do not
  let it decide on people.\
"""


def write_card(manifest: Manifest, shrunk: Shrunk, photos: Photos) -> str:
    """The model card."""
    parts = (
        f"# {manifest.name}, version {manifest.version}",
        f"{manifest.description} {SUBJECTS}",
        _accuracy(manifest, shrunk, photos),
        READING,
        _origin(manifest),
    )
    return "\n\n".join(parts) + "\n"


def _accuracy(manifest: Manifest, shrunk: Shrunk, photos: Photos) -> str:
    rows = "\n".join(_row(variant, shrunk) for variant in manifest.graphs)
    count = len(photos.labelled.truth)
    return f"""\
## Accuracy

| graph | bytes | top-1 | top-5 |
| --- | --- | --- | --- |
{rows}

Measured on the {count} photos of `{photos.labelled.dataset}`, one of each of {count}
classes, through the preprocessing and the graphs that are served. {count} photos tell
little: one more or less right is {100 / count:.1f} points. Whether the network was
trained on one of them is not known. The published top-1 on ImageNet's 50,000 validation
photos is what to expect: 75.1 % for Lite0, 76.7 % for Lite1 and 77.6 % for Lite2.

fp32: the weights are stored in fp16, which moves no logit by more than
{shrunk.stored_error:.3f}; ONNX Runtime computes in fp32.

int8: {_gate(shrunk.int8_gate)}\
"""


def _origin(manifest: Manifest) -> str:
    spec, origin = manifest.preprocess, manifest.provenance
    return f"""\
Images: {spec.interpolation}, short side {spec.short_side}, then the center
{spec.width}x{spec.height}.

## Origin

{origin.source}. Licence: {origin.license}. M. Tan and Q. V. Le, "EfficientNet:
Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.
Changed here: batch normalization folded, normalization put into the graph, weights
stored in fp16, quantized to int8, class-activation maps added.
Label names: WordNet 3.0, copyright 2006 by Princeton University. The golden examples
are two photos of Dogs vs. Cats and one of Pascal VOC 2007.

Made by `{origin.command}` at commit {origin.commit}, on {origin.hardware}.\
"""


def _row(variant: GraphVariant, shrunk: Shrunk) -> str:
    values = variant.metrics[0].values
    size = len(shrunk.graphs[variant.file])
    return (
        f"| {variant.precision} | {size:,} | {values['top_1']:.3f} "
        f"| {values['top_5']:.3f} |"
    )


def _gate(gate: Gate) -> str:
    verdict = "passed its gate" if gate.passed else "did not pass its gate"
    return f"{verdict}: {gate.reason}."
