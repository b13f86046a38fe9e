"""A smaller graph that is not good enough is left out, and the card says why."""

from pathlib import Path

import pytest

from classifier.bundle import load_bundle
from classifier.manifest import Precision
from tests.training.bundling.pooled import pooled_bundle
from tests.training.quantization.nets import net, scaled
from training.configs.task_sections import BundleConfig
from training.quantization import float16

HUGE = {"w2": 16_000, "b2": 16_000, "b3": 16_000, "w4": 1 / 16_000}
VANISHING = {"w5": 1e-8, "b5": 0.0}  # weights that are zero in fp16


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
    assert ("- No fp16 graph: its activations reach" in card) is not is_made
