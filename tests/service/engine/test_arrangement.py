"""How a model is served is measured at the start, and what the settings say goes."""

import sys

import pytest

from classifier.bundle import load_bundle
from service.engine.arrangement import best, shared_seconds
from service.engine.engine import LaneEngine
from service.engine.models import ServedModel, load_model
from service.settings import Settings
from tests.synthetic import make_bundle

opened: list[str] = []  # an audit hook stays for ever; this one only notes names
sys.addaudithook(lambda event, a: opened.append(str(a[0])) if event == "open" else None)


@pytest.fixture
def load(tmp_path):
    """`load(lanes=2)` → a tiny model, loaded and measured under these settings."""
    make_bundle(tmp_path, "colors")

    def load(**settings: object) -> ServedModel:
        bundle = load_bundle(tmp_path / "colors")
        return load_model(bundle, Settings(models=tmp_path, **settings), device="cpu")

    return load


def test_batches_that_cost_nearly_the_same_are_as_good():
    """The largest of them for a crowd of singles, the smallest beside batches."""
    assert best({1: 0.0100, 2: 0.0099, 4: 0.0099, 8: 0.011}) == (4, 1, 0.0099)
    assert best({1: 0.0100, 2: 0.0080, 4: 0.0079}) == (4, 2, 0.0079)
    assert best({2: 0.0100, 4: 0.0107}, nearly=0.1) == (4, 2, 0.0107)


def test_lanes_that_begin_too_late_to_be_measured_are_measured_once(monkeypatch):
    """A machine that stands still just then is no reason not to start."""
    ran = []

    class Runs:
        def run(self, batch):
            ran.append(len(batch))
            return batch

    monkeypatch.setattr("service.engine.arrangement.CUDA_MEASURE_S", 0.0)
    spent_s = shared_seconds(Runs(), (8, 8, 3), 4, lanes=3)

    assert spent_s > 0
    assert ran == [4] * 4  # first to warm up


def test_every_cost_of_the_arrangement_is_measured(load):
    """None is a guess."""
    model = load()

    assert model.arrangement.crowd.cost_s > 0
    assert model.arrangement.lone.cost_s > 0
    assert model.decode_s > 0


def test_settings_go_before_what_was_measured(load):
    """Somebody may know better, or share the machine."""
    arrangement = load(lanes=3, batch=5).arrangement

    assert (arrangement.lanes, arrangement.crowd.batch) == (3, 5)


def test_a_start_reads_the_graph_once(load):
    """Two sessions are built from the same bytes, which were hashed once."""
    opened.clear()
    load()

    assert sum(name.endswith("model.onnx") for name in opened) == 1


@pytest.mark.parametrize(
    ("decode", "inline", "ahead"),
    [("auto", True, False), ("lane", False, False), ("ahead", False, True)],
)
async def test_where_to_decode_can_be_said(tmp_path, decode, inline, ahead):
    """On the loop, in the lane, or in a pool before it."""
    make_bundle(tmp_path, "colors")
    engine = LaneEngine(Settings(models=tmp_path, decode=decode, lanes=3))
    await engine.start()
    found = engine.inline is not None, engine._ahead is not None
    lanes = len(engine._lanes)
    await engine.close()

    assert found == (inline, ahead)
    assert lanes == 3
