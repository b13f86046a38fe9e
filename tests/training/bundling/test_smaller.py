"""A smaller graph that is not good enough is left out, and the card says why."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from classifier.bundle import load_bundle
from classifier.manifest import Manifest, PostprocessSpec, Precision, Task
from tests.synthetic import manifest_fields
from tests.training.bundling.pooled import pooled_bundle
from tests.training.data.pictures import write_tree
from tests.training.quantization.nets import (
    HUGE,
    SIDE,
    VANISHING,
    net,
    scaled,
    with_tail,
)
from training.bundling import bundling
from training.bundling.bundling import build_bundle, calibrated, smaller
from training.bundling.draft import Recipe
from training.bundling.labels import bundle_labels
from training.bundling.next_version import DataSource, optimize_bundle, splits_for
from training.configs.task_sections import BundleConfig
from training.data import Splits, cut, load_dataset
from training.data.dataset import Split
from training.data.pieces import in_pieces
from training.data.scenes import Scenes
from training.graphs.graph import run
from training.quantization import float16, quantize
from training.rules import requirements
from training.rules.rules import answers


@pytest.mark.parametrize(
    ("factors", "wanted", "is_stored"),
    [({}, True, True), (VANISHING, True, False), ({}, False, False)],
)
def test_weights_that_fp16_cannot_store_stay_in_fp32(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    factors: dict[str, float],
    wanted: bool,
    is_stored: bool,
):
    """A model is no less good without, and its next version stays without."""
    monkeypatch.setattr(float16, "MIN_STORED_VALUES", 100)  # those of a small net
    graph = scaled(net(classes=3), factors)

    config = BundleConfig(int8=False, half_storage=wanted)
    folder = pooled_bundle(tmp_path, config, graph=graph)
    optimize_bundle(folder, DataSource(tmp_path / "photos"), int8=False, fp16=False)

    bundle, newer = (load_bundle(folder, version=version) for version in (1, 2))
    assert newer.graph(Precision.FP32).sha256 == bundle.graph(Precision.FP32).sha256
    written = bundle.read_graph(bundle.graph(Precision.FP32))
    remark = "- Weights are stored in fp32: fp16 storage of the weights moves a logit"
    assert (b"w5_fp16" in written) is is_stored
    told = remark in (bundle.folder / "card.md").read_text()
    assert told is (wanted and not is_stored)


# A head beyond what fp16 holds, behind features below it.
CLIPPED = {"w4": 1e-6, "b4": 1e-6, "w5": 1e6}


@pytest.mark.parametrize("factors", [CLIPPED, VANISHING])
def test_weights_that_fp16_loses_leave_no_fp16_graph(
    tmp_path: Path, factors: dict[str, float]
):
    """A GPU would take it, and its golden answers would be as wrong as all others."""
    graph = scaled(net(classes=3), factors)
    config = BundleConfig(int8=False, fp16=True)

    folder = pooled_bundle(tmp_path, config, graph=graph)

    bundle = load_bundle(folder)
    assert [each.precision for each in bundle.manifest.graphs] == [Precision.FP32]
    assert (
        "- No fp16 graph: a logit moves by " in (bundle.folder / "card.md").read_text()
    )


def with_parts(splits: Splits, **parts: Split) -> Splits:
    """The same splits, but for those that are given."""
    names = ("train", "validation", "calibration")
    same = {name: getattr(splits, name) for name in names}
    return Splits(splits.dataset, test=None, **same | parts)


def small_recipe(splits: Splits, task: Task) -> Recipe:
    """Of a bundle of the small network, with an int8 graph if that passes."""
    fields = manifest_fields("colors", task, side=SIDE)
    manifest = Manifest.model_validate_json(json.dumps(fields))
    return Recipe(
        name="colors",
        task=task,
        labels=bundle_labels(splits.dataset, task),
        preprocess=manifest.preprocess,
        config=BundleConfig(),
        provenance=manifest.provenance,
    )


def test_the_ranges_of_int8_are_those_of_the_calibration_images(tmp_path: Path):
    """Those that judge it may not give them: it would be fitted to its judges."""
    colors = dict.fromkeys(("blue", "green", "red"), 20)
    splits = cut(load_dataset(write_tree(tmp_path, colors)))
    one = with_parts(splits, calibration=splits.calibration.select(np.array([0])))
    graph, recipe = (
        net(classes=3).SerializeToString(),
        small_recipe(splits, Task.MULTICLASS),
    )
    batches = in_pieces(splits.validation.pixels(recipe.preprocess), size=16)
    rules = plain_rules(Task.MULTICLASS)

    made = [
        smaller(graph, recipe, each, rules, batches, [])[Precision.INT8].graph
        for each in (splits, splits, one)
    ]

    assert made[0] == made[1]
    assert made[0] != made[2]


def test_a_yes_or_no_that_int8_confuses_is_judged_by_its_threshold(tmp_path: Path):
    """Of a single logit the best label is always the same."""
    splits = cut(
        load_dataset(write_tree(tmp_path, {"blue": 30, "red": 30})), validation=0.5
    )
    recipe, rules = small_recipe(splits, Task.BINARY), plain_rules(Task.BINARY)
    # decisions that hang on the fourth decimal of a score cannot survive 8 bits
    graph = waves(1e4)
    batches = in_pieces(splits.validation.pixels(recipe.preprocess), size=16)
    splits = rightly_labelled(splits, graph, recipe)
    remarks: list[str] = []

    made = smaller(graph, recipe, splits, rules, batches, remarks)

    assert made == {}
    assert re.search(
        r"accuracy over 30 labelled images lost [1-9].*By class, accuracy would "
        r"change: `(blue|red)` -\d",
        remarks[-1],
    )


def waves(far: float) -> bytes:
    """A yes or no that changes at every so small step of a score."""
    nodes = [
        helper.make_node("Mul", ["scores", "far"], ["farther"]),
        helper.make_node("Sin", ["farther"], ["logits"]),
    ]
    return with_tail(net(classes=1), nodes, {"far": np.float32(far)}, outputs=1)


def rightly_labelled(
    splits: Splits, graph: bytes, recipe: Recipe, *, scenes: Scenes | None = None
) -> Splits:
    """With validation labels by which every answer of the graph is right."""
    batches = in_pieces(splits.validation.pixels(recipe.preprocess), size=16)
    labels = answers(run(graph, batches), plain_rules(recipe.task)).astype(np.int64)
    judges = replace(splits.validation, labels=labels, scenes=scenes)
    return with_parts(splits, validation=judges)


@pytest.mark.parametrize(("far", "is_told"), [(1, False), (1000, True)])
def test_the_card_says_where_a_smaller_graph_grants_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, far: float, is_told: bool
):
    """No gate judges an fp16 graph; one that grants the same needs no line."""
    monkeypatch.setattr(float16, "MAX_ARITHMETIC_ERROR", math.inf)
    photos = write_tree(tmp_path / "photos", {"blue": 30, "red": 30})
    splits = cut(load_dataset(photos), validation=0.5)
    config = BundleConfig(int8=False, fp16=True, false_negative_cost=2)
    recipe = replace(small_recipe(splits, Task.BINARY), config=config)
    graph = waves(far)
    splits = rightly_labelled(splits, graph, recipe)

    made = build_bundle(graph, recipe, splits, tmp_path / "models")

    card = (made.folder / "card.md").read_text()
    asked = "Asked for: the least cost, 1 for a false positive and 2 for a false"
    assert f"- {asked}" in card
    assert (f"- fp16: {asked}" in card) is is_told


@pytest.mark.parametrize(
    ("risk", "in_pairs", "proven"),
    [(0.2, False, 0.1533), (0.2, True, None), (0.3, True, 0.2831)],
)
def test_a_bundle_grants_what_its_validation_images_prove(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    risk: float,
    in_pairs: bool,
    proven: float | None,
):
    """Eighteen right answers prove a risk below 0.2, nine scenes do not.

    And what fp32 was granted an int8 graph has to keep: here it may lose nothing.
    """
    monkeypatch.setattr(requirements, "MAX_RISK_RISE", -1)
    colors = dict.fromkeys(("blue", "green", "red"), 60)
    splits = cut(load_dataset(write_tree(tmp_path / "photos", colors)), validation=18)
    recipe = replace(
        small_recipe(splits, Task.MULTICLASS), config=BundleConfig(risk=risk)
    )
    graph = net(classes=3).SerializeToString()
    scenes = np.arange(18) // 2 if in_pairs else None
    splits = rightly_labelled(splits, graph, recipe, scenes=scenes)

    made = build_bundle(graph, recipe, splits, tmp_path / "models")

    card = (made.folder / "card.md").read_text()
    granted = proven is not None
    asked = f"- Asked for: at most {risk:g} of the answers wrong. "
    assert f"{asked}{'Granted' if granted else 'Not reached'}" in card
    # of fp32, and of int8 in the reason why there is none
    assert card.count(f"the risk is at most {proven}") == 2 * granted
    assert (made.manifest.postprocess.abstain_threshold is not None) is granted
    assert (made.manifest.graph(Precision.INT8) is None) is granted
    assert ("- No int8 graph: " in card) is granted


def plain_rules(task: Task) -> PostprocessSpec:
    """Without a temperature; yes from a half on."""
    sigmoid = task.activation == "sigmoid"
    return PostprocessSpec(
        activation=task.activation,
        temperature=1.0,
        thresholds=(0.5,) if sigmoid else None,
        top_k=1,
        abstain_threshold=None,
    )


def test_a_network_that_cannot_be_quantized_has_no_int8_graph(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    """ONNX Runtime may meet what it does not know; int8 is a default."""

    def give_up(_: object) -> None:
        raise ValueError("an operator from elsewhere")

    monkeypatch.setattr(quantize.QDQQuantizer, "quantize_model", give_up)
    graph = net(classes=3).SerializeToString()

    folder = pooled_bundle(tmp_path, BundleConfig(int8=True), graph=graph)

    bundle = load_bundle(folder)
    remark = "No int8 graph: ONNX Runtime cannot quantize it: "
    assert [graph.precision for graph in bundle.manifest.graphs] == [Precision.FP32]
    assert remark in (bundle.folder / "card.md").read_text()
    assert any(record.message.startswith(remark) for record in caplog.records)


def test_int8_made_by_a_few_images_says_so_on_the_card_and_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Of 54 photos in pairs, six judge the graph and are worth three.

    Whether it passes or not.
    """
    folder = pooled_bundle(tmp_path, BundleConfig(int8=True), images=18, pairs=True)

    card = (load_bundle(folder).folder / "card.md").read_text()
    few = [
        "6 images in scenes, worth 3 single ones, cannot tell 97 % agreement from "
        "36.84 %: give at least 100",
        "int8: ranges from 48 calibration images; give at least 50, or ranges may be "
        "too narrow",
    ]
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    for told in few:
        assert told in card
        assert any(message.endswith(told) for message in warnings)


@pytest.mark.parametrize(
    ("counts", "said", "level"),
    [
        ({"blue": 25, "green": 20, "red": 5}, "50 calibration images", "INFO"),
        (
            {"blue": 50},
            "50 calibration images; they lack 2 labels of train: `green`, `red`",
            "WARNING",
        ),
        (
            {"blue": 25, "green": 25},
            "50 calibration images; they lack 1 label of train: `red`",
            "WARNING",
        ),
        (
            {"blue": 1},
            "1 calibration image; give at least 50, or ranges may be too narrow; "
            "they lack 2 labels of train: `green`, `red`",
            "WARNING",
        ),
    ],
)
def test_calibration_images_are_counted_and_labels_that_they_lack_named(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    counts: dict[str, int],
    said: str,
    level: str,
):
    """A split of one's own may be of a single label; of enough nothing is warned."""
    write_tree(tmp_path / "train", {"blue": 9, "green": 9, "red": 9})
    write_tree(tmp_path / "calibration", counts)
    splits = cut(load_dataset(tmp_path))

    with caplog.at_level("INFO"):
        line = calibrated(splits)

    assert line == f"int8: ranges from {said}"
    assert [(r.message, r.levelname) for r in caplog.records][-1] == (line, level)


@pytest.mark.parametrize(("factors", "is_made"), [({}, True), (HUGE, False)])
def test_a_network_that_overflows_in_fp16_has_no_such_graph(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    factors: dict[str, float],
    is_made: bool,
):
    """A CPU computes it in fp32, and would find nothing wrong with it.

    Golden images are few where they are large: here one is too large by far.
    """
    monkeypatch.setattr(bundling, "GOLDEN_BYTES", 1)
    graph = scaled(net(classes=3), factors)
    config = BundleConfig(int8=False, fp16=True)

    bundle = load_bundle(pooled_bundle(tmp_path, config, graph=graph))

    card = (bundle.folder / "card.md").read_text()
    assert (bundle.manifest.graph(Precision.FP16) is not None) is is_made
    assert ("fp16 were computed on a CPU, in fp32 arithmetic" in card) is is_made
    assert ("- No fp16 graph: activations reach" in card) is not is_made
    assert ("- fp16: activations reach " in card) is is_made
    warned = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert any("No fp16 graph: act" in line for line in warned) is not is_made
    assert len(bundle.read_golden().pixels) == 1


def test_an_fp16_graph_goes_where_its_weights_are_found_to_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One from before activations were looked at; a GPU would answer NaN with it."""
    graph, config = scaled(net(classes=3), HUGE), BundleConfig(int8=False, fp16=True)
    with monkeypatch.context() as unlooked:
        unlooked.setattr(bundling, "MAX_ACTIVATION", np.inf)
        folder = pooled_bundle(tmp_path, config, graph=graph)

    for fp16 in (False, True):
        optimize_bundle(folder, DataSource(tmp_path / "photos"), int8=False, fp16=fp16)

    old, gone = (load_bundle(folder, version=version) for version in (2, 3))
    assert old.manifest.graph(Precision.FP16) is not None
    assert gone.manifest.graph(Precision.FP16) is None
    card = (gone.folder / "card.md").read_text()
    assert "- Left out: the fp16 graph of version 2: activations reach" in card
    assert "Not made anew: the fp16 graph" not in card


def test_a_part_of_a_large_validation_is_looked_at_for_fp16_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Spread over all of it: class folders come one after another."""
    monkeypatch.setattr(bundling, "BATCH", 2)
    monkeypatch.setattr(bundling, "ACTIVATION_IMAGES", 4)

    folder = pooled_bundle(tmp_path, BundleConfig(int8=False, fp16=True))

    bundle = load_bundle(folder)
    images = splits_for(bundle.manifest, DataSource(tmp_path / "photos")).validation
    pixels = images.pixels(bundle.manifest.preprocess)
    assert bundle.read_golden().pixels.tolist() == pixels[[0, 1, 3, 5]].tolist()
    card = (bundle.folder / "card.md").read_text()
    assert re.search(r"fp16: activations reach \d+ within 4 validation images", card)
