"""A smaller graph that is not good enough is left out, and the card says why."""

import re
from pathlib import Path

import numpy as np
import pytest

from classifier.bundle import load_bundle
from classifier.manifest import Precision
from tests.training.bundling.pooled import pooled_bundle
from tests.training.quantization.nets import HUGE, VANISHING, net, scaled
from training.bundling import bundling
from training.bundling.next_version import DataSource, optimize_bundle
from training.configs.task_sections import BundleConfig
from training.quantization import float16


@pytest.mark.parametrize(("factors", "is_stored"), [({}, True), (VANISHING, False)])
def test_weights_that_fp16_cannot_store_stay_in_fp32(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    factors: dict[str, float],
    is_stored: bool,
):
    """It is tried by default, and a model is no less good without."""
    monkeypatch.setattr(float16, "MIN_STORED_VALUES", 100)  # those of a small net
    graph = scaled(net(classes=3), factors)

    folder = pooled_bundle(tmp_path, BundleConfig(int8=False), graph=graph)

    bundle = load_bundle(folder)
    written = bundle.read_graph(bundle.graph(Precision.FP32))
    remark = "- Weights are stored in fp32: fp16 storage of the weights moves a logit"
    assert (b"w5_fp16" in written) is is_stored
    assert (remark in (bundle.folder / "card.md").read_text()) is not is_stored


@pytest.mark.parametrize(("factors", "is_made"), [({}, True), (HUGE, False)])
def test_a_network_that_overflows_in_fp16_has_no_such_graph(
    tmp_path: Path, factors: dict[str, float], is_made: bool
):
    """A CPU computes it in fp32, and would find nothing wrong with it."""
    graph = scaled(net(classes=3), factors)
    config = BundleConfig(int8=False, fp16=True)

    bundle = load_bundle(pooled_bundle(tmp_path, config, graph=graph))

    card = (bundle.folder / "card.md").read_text()
    assert (bundle.manifest.graph(Precision.FP16) is not None) is is_made
    assert ("fp16 were computed on a CPU, in fp32 arithmetic" in card) is is_made
    assert ("- No fp16 graph: activations reach" in card) is not is_made
    assert ("- fp16: activations reach " in card) is is_made


def test_an_fp16_graph_goes_where_its_weights_are_found_to_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One from before activations were looked at; a GPU would answer NaN with it."""
    graph, config = scaled(net(classes=3), HUGE), BundleConfig(int8=False, fp16=True)
    with monkeypatch.context() as unlooked:
        unlooked.setattr(bundling, "MAX_ACTIVATION", np.inf)
        folder = pooled_bundle(tmp_path, config, graph=graph)

    optimize_bundle(folder, DataSource(tmp_path / "photos"), int8=False, fp16=True)

    old, gone = (load_bundle(folder, version=version) for version in (1, 2))
    assert old.manifest.graph(Precision.FP16) is not None
    assert gone.manifest.graph(Precision.FP16) is None
    card = (gone.folder / "card.md").read_text()
    assert "- Left out: the fp16 graph of version 1: activations reach" in card
    assert "Not made anew: the fp16 graph" not in card


def test_a_part_of_a_large_validation_is_looked_at_for_fp16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Spread over all of it: class folders come one after another."""
    monkeypatch.setattr(bundling, "BATCH", 2)
    monkeypatch.setattr(bundling, "ACTIVATION_IMAGES", 4)

    folder = pooled_bundle(tmp_path, BundleConfig(int8=False, fp16=True))

    card = (load_bundle(folder).folder / "card.md").read_text()
    assert re.search(r"fp16: activations reach \d+ within 4 validation images", card)
