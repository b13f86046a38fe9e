"""The ImageNet bundle: labels that are right, graphs that reach what is promised."""

import csv
import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from classifier import Classifier
from classifier.bundle import load_bundle
from classifier.manifest import Precision
from classifier.session import Session
from cli import app
from training.errors import ConfigError, DataError, DiskError, TrainingError
from training.networks import build
from training.pretrained.photos import Photos, load_imagenet, load_photos
from training.pretrained.published import (
    MEAN,
    PUBLISHED,
    STD,
    Published,
    find_checkpoint,
    find_published,
    load_labels,
)
from training.quantization.gate import Labelled


@pytest.fixture(scope="module")
def bundle(repository):
    """The bundle that comes with the checkout."""
    return load_bundle(repository / "models" / "imagenet")


def test_labels_are_the_thousand_in_the_order_of_their_ids():
    """Every ImageNet network counts the sorted wnids; names occur once."""
    labels = load_labels()

    ids = [label.id for label in labels]
    assert len(ids) == 1000
    assert ids == sorted(set(ids))
    assert all(len(i) == 9 and i[0] == "n" and i[1:].isdecimal() for i in ids)
    assert len({label.name for label in labels}) == 1000


def test_labels_agree_with_the_labelled_photos(sample_photos):
    """Sixty of them are known from another source: id, index and name."""
    labels = load_labels()

    for photo in sample_photos:
        label = labels[photo.class_index]
        assert (label.id, label.name) == (photo.wnid, photo.name)


def test_weights_are_found_by_any_spelling_of_the_network():
    """Whoever can build the network by that name can have its weights."""
    assert find_published("EfficientNet-Lite0").network == "efficientnet_lite0"


def test_the_committed_bundle_has_those_labels(bundle):
    """The list in training/ and the bundle cannot drift apart."""
    assert bundle.manifest.labels == load_labels()


def test_the_committed_bundle_is_small_enough_to_clone(bundle):
    """Both graphs together in 16 MB."""
    size = sum(file.stat().st_size for file in bundle.folder.glob("*.onnx"))

    assert size <= 16e6
    assert {graph.precision for graph in bundle.manifest.graphs} == {"fp32", "int8"}


def test_int8_passed_its_gate(bundle):
    """At most a point lost, 97 of 100 decisions the same, over a thousand photos."""
    gate = bundle.graph("int8").gate

    assert gate.passed
    assert gate.accuracy_drop <= 0.01
    assert gate.agreement >= 0.97


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_sixty_photos_are_recognized(repository, sample_photos, precision):
    """Top-1 of 85 % and top-5 of 95 %, through the library as users call it."""
    classifier = Classifier.load(
        repository / "models" / "imagenet", precision=precision, device="cpu"
    )

    answers = classifier.classify_many([photo.path for photo in sample_photos], top_k=5)

    ranked = [[p.index for p in answer.predictions] for answer in answers]
    truth = [photo.class_index for photo in sample_photos]
    top_1 = np.mean([r[0] == t for r, t in zip(ranked, truth, strict=True)])
    top_5 = np.mean([t in r for r, t in zip(ranked, truth, strict=True)])
    assert top_1 >= 0.85
    assert top_5 >= 0.95
    variant = classifier.bundle.graph(precision)
    # another processor may round an int8 sum the other way: one photo of slack
    assert top_1 == pytest.approx(variant.metrics[0].values["top_1"], abs=1.01 / 60)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_class_map_averages_to_its_logit(repository, bundle, precision):
    """The map of a class, averaged, is its logit without the bias: one constant."""
    classifier = Classifier.load(
        repository / "models" / "imagenet", precision=precision, device="cpu"
    )
    pixels = bundle.read_golden().pixels

    logits, maps = classifier.session.run_with_class_maps(pixels)

    bias = logits - maps.mean(axis=(2, 3))  # [n, K]
    assert maps.shape == (3, 1000, 7, 7)
    # int8 rounds the pooled features once more on the way to the logits
    assert np.ptp(bias, axis=0).max() < (0.3 if precision == "int8" else 1e-3)


def test_the_recorded_figures_reach_the_goals(repository):
    """The record is made by `python -m bench.imagenet`."""
    record = json.loads((repository / "docs" / "results" / "imagenet.json").read_text())

    assert record["unlabelled"] >= 1000
    assert record["fp32"]["top_1"] >= 0.85
    assert record["fp32"]["top_5"] >= 0.95
    assert record["int8"]["top_1"] >= record["fp32"]["top_1"] - 0.01
    assert record["int8"]["agreement_with_fp32"] >= 0.97


def test_ranges_and_agreement_come_from_different_photos(data_dir):
    """Train gives the ranges, the other splits the agreement, ImageNet neither."""
    photos = load_photos(data_dir, SMALL.spec)

    calibration = {image.tobytes() for batch in photos.calibration for image in batch}
    others = {image.tobytes() for batch in photos.unlabelled for image in batch}
    labelled = {image.tobytes() for batch in photos.labelled.batches for image in batch}
    assert len(calibration) >= 290
    assert sum(map(len, photos.unlabelled)) >= 1000
    assert not calibration & labelled
    assert not others & labelled
    assert len(calibration & others) <= 2  # the sets themselves have a few doubles


SMALL = Published("none", "efficientnet_lite0", 16)


def test_missing_photos_are_named(tmp_path):
    """Who has not got them learns which."""
    with pytest.raises(DataError, match=r"cats-dogs\.tar"):
        load_photos(tmp_path, SMALL.spec)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"filename,class_index\n",
        b"filename,class_index\nnone.jpg,7\n",
        b"filename,class_index\na.jpg,seven\n",
        b"\xff",
    ],
    ids=["empty", "rows", "photo", "number", "text"],
)
def test_a_list_of_photos_that_is_none_is_named(tmp_path, content):
    """A clear line, whichever part of it is damaged."""
    (tmp_path / "labels.csv").write_bytes(content)

    with pytest.raises(DataError, match=str(tmp_path)):
        load_imagenet(tmp_path, SMALL.spec)


def test_a_missing_package_is_named():
    """The weights come with an extra."""
    with pytest.raises(TrainingError, match="extra 'pretrained'"):
        find_checkpoint(Published("no-such-weights-model", "efficientnet_lite0", 224))


@pytest.fixture
def published(bundle, monkeypatch):
    """`linnaeus pretrained` on weights and photos that are drawn: the photos.

    Its int8 graph is the fp32 one: how such are made is tested elsewhere.
    """
    torch.manual_seed(0)
    network = build(SMALL.network, classes=1000).eval()
    noise = np.random.default_rng(0)
    pixels = [noise.integers(0, 256, (4, 16, 16, 3), np.uint8) for _ in range(3)]
    images = torch.tensor(pixels[0]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        ranked = network((images - MEAN[0]) / STD[0]).argsort(descending=True).numpy()
    truth = ranked[np.arange(4), [0, 0, 3, 999]]
    photos = Photos(pixels[:1], pixels[1:], Labelled("few", pixels[:1], truth), {})
    gate = bundle.graph(Precision.INT8).gate
    for name, value in (
        ("imagenet.find_published", lambda _: SMALL),
        ("imagenet.load_published", lambda _: network),
        ("imagenet.load_photos", lambda *_: photos),
        ("shrunk.gated_int8", lambda g, *_, **__: SimpleNamespace(graph=g, gate=gate)),
    ):
        monkeypatch.setattr(f"training.pretrained.{name}", value)
    return photos


def test_a_published_network_becomes_a_bundle(published, tmp_path, monkeypatch):
    """Measured as it is served, with maps in every graph, and with its own command."""
    typed = ["pretrained", "efficientnet-lite0", "--name", "small"]
    typed += ["--models", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["linnaeus", *typed])

    result = CliRunner().invoke(app, typed, catch_exceptions=False)

    assert result.exit_code == 0, result.output
    made = load_bundle(tmp_path / "small")
    [pixels], truth = published.labelled.batches, published.labelled.truth
    for variant in made.manifest.graphs:
        session = Session.load(made.read_graph(variant))
        ranks = ((-session.run(pixels)).argsort(1) == truth[:, None]).argmax(1)
        found = variant.metrics[0].values
        assert session.has_class_maps
        assert found == {"top_1": (ranks < 1).mean(), "top_5": (ranks < 5).mean()}
        assert found["top_1"] < found["top_5"]
    others = np.concatenate(published.unlabelled)
    assert np.array_equal(made.read_golden().pixels, others[[0, 2, 4]])
    assert made.manifest.provenance.command == shlex.join(["linnaeus", *typed])


def test_the_card_of_a_published_network_has_what_was_measured(published, tmp_path):
    """The size of each graph, and what became of int8."""
    typed = ["pretrained", "efficientnet-lite0", "--models", str(tmp_path)]

    CliRunner().invoke(app, typed, catch_exceptions=False)

    made = load_bundle(tmp_path / "imagenet")
    fp32, int8 = made.manifest.graphs
    card = (made.folder / "card.md").read_text()
    assert fp32.gate is None
    assert f"| fp32 | {len(made.read_graph(fp32)):,} | " in card
    assert f"int8: passed its gate: {int8.gate.reason}." in card


def test_each_published_network_keeps_its_own_size():
    """224, 240 and 260 pixels, cut from images 32 larger."""
    specs = [published.spec for published in PUBLISHED.values()]

    assert [(s.height, s.short_side) for s in specs] == [
        (224, 256),
        (240, 272),
        (260, 292),
    ]
    assert {s.interpolation for s in specs} == {"bicubic"}


def test_the_label_file_has_two_columns(repository):
    """Anybody can read it."""
    with (repository / "training/labels/imagenet.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["id", "name"]


def test_a_name_that_no_bundle_may_have_is_refused_before_anything_else(tmp_path):
    """Not after minutes of quantization; here there are not even photos."""
    arguments = ["pretrained", "efficientnet-lite0", "--name", "My Pets"]

    result = CliRunner().invoke(app, [*arguments, "--data", str(tmp_path)])

    assert result.exit_code == 1
    assert "cannot be called 'My Pets'" in str(result.exception)


@pytest.mark.parametrize(
    ("model", "name"),
    [("efficientnet-lite0", "imagenet"), ("efficientnet-lite1", "efficientnet-lite1")],
)
def test_a_place_that_takes_no_bundle_is_refused_before_the_weights_are_read(
    tmp_path, model, name
):
    """Not after the minutes, either; here a file is in the place of the models."""
    models = tmp_path / "models"
    models.write_text("")
    places = ("--models", str(models), "--data", str(tmp_path))

    result = CliRunner().invoke(app, ["pretrained", model, *places])

    assert isinstance(result.exception, DiskError)
    assert f"cannot write {models / name}" in str(result.exception)


def test_a_model_that_is_not_published_is_answered_with_those_that_are():
    """The command has the names twice, for its help should not wait for torch."""
    result = CliRunner().invoke(app, ["pretrained", "resnet50"])

    assert isinstance(result.exception, ConfigError)
    known = ", ".join(name.replace("_", "-") for name in PUBLISHED)
    assert str(result.exception) == f"unknown model 'resnet50'; there are: {known}"
