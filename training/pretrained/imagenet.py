"""shrunk graphs + measurements → **models/imagenet**: manifest, card, bundle."""

import time
from pathlib import Path

from classifier.bundle import list_versions, write_bundle
from classifier.manifest import (
    Gate,
    GraphVariant,
    Manifest,
    PostprocessSpec,
    Provenance,
    Task,
)
from training.pretrained.photos import Photos, load_photos
from training.pretrained.pretrained import (
    PUBLISHED,
    Shrunk,
    load_labels,
    load_network,
    shrink,
)
from training.provenance import circumstances

SOURCE = (
    "Weights by Google, published in tensorflow/tpu (models/official/efficientnet/"
    "lite) and converted to PyTorch by the package {package}"
)


def build_imagenet_bundle(model: str, *, name: str, data: Path, models: Path) -> Path:
    """Build the next version of an ImageNet bundle and return its folder.

    Args:
        model: a key of `PUBLISHED`.
        name: of the bundle.
        data: the folder with the photos that `load_photos` reads.
        models: where bundles live.

    Raises:
        TrainingError, GraphError, NetworkError: a stage fails; nothing is written.
        BundleError: the disk refuses.
    """
    started_s = time.perf_counter()
    published = PUBLISHED[model]
    network = load_network(published)
    photos = load_photos(data, published.spec)
    shrunk = shrink(network, published, photos)
    now = circumstances(f"linnaeus pretrained {model}")
    manifest = Manifest(
        schema_version=1,
        name=name,
        version=(list_versions(models / name) or [0])[-1] + 1,
        description=f"The 1,000 classes of ImageNet, {model}, {published.side} pixels.",
        task=Task.MULTICLASS,
        labels=load_labels(),
        preprocess=published.spec,
        postprocess=PostprocessSpec(
            activation="softmax",
            temperature=1.0,
            thresholds=None,
            top_k=5,
            abstain_threshold=None,
        ),
        graphs=shrunk.variants,
        provenance=Provenance(
            command=now["command"],
            config=None,
            commit=now["commit"],
            data_sha256=photos.sha256,
            versions={k: v for k, v in now["versions"].items() if v is not None},
            hardware=now["machine"],
            seconds=round(time.perf_counter() - started_s, 1),
            created=now["measured"],
            license="Apache-2.0",
            source=SOURCE.format(package=published.package),
        ),
    )
    return write_bundle(
        models,
        manifest,
        graphs=shrunk.graphs,
        golden=shrunk.golden,
        card=write_card(manifest, shrunk, photos),
    )


def write_card(manifest: Manifest, shrunk: Shrunk, photos: Photos) -> str:
    """The model card, Markdown."""
    spec, origin = manifest.preprocess, manifest.provenance
    rows = "\n".join(_row(variant, shrunk) for variant in manifest.graphs)
    count = len(photos.labelled.truth)
    return f"""# {manifest.name}, version {manifest.version}

{manifest.description} It names the main object of a photo, out of ImageNet's 1,000
classes: animals (118 breeds of dog among them), plants, food, vehicles, tools, places.

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

int8: {_gate(shrunk.int8_gate)}

## How to read its answers

- It always answers with one of its classes. A person, a plain wall or a drawing gets
  the class that resembles it most: look at the score.
- Scores are those of the network, temperature 1. They have not been calibrated.
- One label a photo: of several objects it names one.
- Names are the first word or phrase of each WordNet synset: a pig is a "hog". Some
  classes can hardly be told apart ("maillot" and "maillot, tank suit").
- ImageNet's photos come from the web of about 2010 and show the world unevenly. Do not
  let it decide on people.

Images: {spec.interpolation}, short side {spec.short_side}, then the center
{spec.width}x{spec.height}.

## Origin

{origin.source}. Licence: {origin.license}. M. Tan and Q. V. Le, "EfficientNet:
Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.
Changed here: batch normalization folded, normalization put into the graph, weights
stored in fp16, quantized to int8, class-activation maps added.
Label names: WordNet 3.0, copyright 2006 by Princeton University. The golden examples
are three photos of Dogs vs. Cats, the Grocery Store data set and Pascal VOC 2007.

Made by `{origin.command}` at commit {origin.commit}, on {origin.hardware}.
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
