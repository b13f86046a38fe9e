"""shrunk graphs + measurements → **models/imagenet**: manifest, card, bundle."""

import time
from pathlib import Path

from classifier.bundle import write_bundle
from classifier.manifest import Manifest, PostprocessSpec, Provenance, Task
from training.bundling.draft import check_name, next_version
from training.files import try_folder
from training.pretrained.imagenet_card import write_card
from training.pretrained.photos import Photos, load_photos
from training.pretrained.published import (
    Published,
    find_published,
    load_labels,
    load_published,
)
from training.pretrained.shrunk import shrink
from training.provenance import circumstances, command_line

SOURCE = (
    "Weights by Google, published in tensorflow/tpu (models/official/efficientnet/"
    "lite) and converted to PyTorch by the package {package}"
)


def build_imagenet_bundle(model: str, *, name: str, data: Path, models: Path) -> Path:
    """Build the next version of an ImageNet bundle and return its folder.

    Args:
        model: a name that `find_published` knows.
        name: of the bundle.
        data: the folder with the photos that `load_photos` reads.
        models: where bundles live.

    Raises:
        TrainingError: `models` cannot be written, or a stage fails; nothing is written.
        BundleError: the disk refuses.
    """
    check_name(name)
    try_folder(models / name)
    started_s = time.perf_counter()
    published = find_published(model)
    network = load_published(published)
    photos = load_photos(data, published.spec)
    shrunk = shrink(network, published, photos)
    manifest = Manifest(
        schema_version=1,
        name=name,
        version=next_version(models, name),
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
        provenance=provenance(published, photos, started_s=started_s),
    )
    return write_bundle(
        models,
        manifest,
        graphs=shrunk.graphs,
        golden=shrunk.golden,
        card=write_card(manifest, shrunk, photos),
    )


def provenance(published: Published, photos: Photos, *, started_s: float) -> Provenance:
    """Where the bundle comes from, and how long that took."""
    now = circumstances(command_line())
    return Provenance(
        command=now["command"],
        config=None,
        commit=now["commit"],
        data_sha256=photos.sha256,
        versions=now["versions"],
        hardware=now["machine"],
        seconds=round(time.perf_counter() - started_s, 1),
        created=now["measured"],
        license="Apache-2.0",
        source=SOURCE.format(package=published.package),
    )
