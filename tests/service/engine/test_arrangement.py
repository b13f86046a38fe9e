"""How a model is served is measured at the start, and what the settings say goes."""

import gc
import sys
import threading
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from classifier.bundle import load_bundle
from classifier.errors import OutOfMemoryError
from classifier.hardware import available_cores
from classifier.session import _translated
from service.engine import arrangement, models
from service.engine.arrangement import (
    CPU_BATCHES,
    CUDA_LANES,
    TURNS,
    WIDE_BATCH,
    Arrangement,
    arrange_on_cpu,
    arrange_on_cuda,
    best,
    lane_s,
    measured,
)
from service.engine.engine import LaneEngine
from service.engine.models import EngineModel, load_model, prove
from service.settings import Settings
from tests.synthetic import make_bundle

opened: list[str] = []  # an audit hook stays for ever; this one only notes names
sys.addaudithook(lambda event, a: opened.append(str(a[0])) if event == "open" else None)


@pytest.fixture
def load(tmp_path):
    """`load(lanes=2)` → a tiny model, loaded and measured under these settings."""
    make_bundle(tmp_path, "colors")

    def load(**settings: object) -> EngineModel:
        bundle = load_bundle(tmp_path / "colors")
        return load_model(bundle, Settings(models=tmp_path, **settings), device="cpu")

    return load


def test_batches_that_cost_nearly_the_same_are_as_good():
    """The largest of them for a crowd of singles. Where these meet batch requests, a
    smaller one may cost some more."""
    assert best({1: 0.0100, 2: 0.0099, 4: 0.0099, 8: 0.011}) == (4, 1, 0.0099)
    assert best({1: 0.0100, 2: 0.0080, 4: 0.0079}) == (4, 2, 0.0079)
    assert best({2: 0.0100, 4: 0.0107}, nearly=0.1) == (4, 2, 0.0107)
    assert best({1: 0.0078, 4: 0.0080}, beside_s=0.001) == (4, 1, 0.0080)
    assert best({1: 0.0078, 4: 0.0080}, beside_s=0.003) == (4, 4, 0.0080)
    assert best({1: 0.0079, 2: 0.0065, 8: 0.0060}, beside_s=0.001) == (8, 2, 0.0060)


def test_lanes_that_begin_too_late_to_be_measured_are_measured_all_the_same(
    monkeypatch,
):
    """A machine that stands still just then is no reason not to start."""
    ran = []

    class Runs:
        def run(self, batch):
            ran.append(len(batch))
            return batch

    monkeypatch.setattr("service.engine.arrangement.ENOUGH_S", 0.0)
    cost_s = measured(Runs(), (8, 8, 3), (4,), lanes=3, measure_s=0.0)[4]

    assert cost_s > 0
    assert ran == [4] * (1 + 3)  # first to warm up, then once in each lane


def test_a_slow_moment_does_not_choose_the_batch(monkeypatch):
    """Each size has its turn again and again, and the least of them counts."""
    ran, sizes = [], (1, 2, 4)

    class Runs:
        def run(self, batch):
            ran.append(len(batch))
            disturbed = len(ran) == len(sizes) + sizes.index(2) + 1  # in the first turn
            time.sleep(0.2 if disturbed else 0.001)
            return batch

    monkeypatch.setattr("service.engine.arrangement.ENOUGH_S", float("inf"))
    monkeypatch.setattr("service.engine.arrangement.TURNS", TURNS)
    cost_s = measured(Runs(), (8, 8, 3), sizes, measure_s=0.0)

    assert ran == [*sizes] * (1 + TURNS)
    assert cost_s[2] < 0.1


def test_a_lane_that_has_stopped_costs_nothing():
    """Its last run is over while another's goes on: that other is what takes time."""
    sleeps = iter((0.0, 0.3))  # each lane runs once, though one thread may do both

    class Runs:
        def run(self, batch):
            time.sleep(next(sleeps))
            return batch

    cost_s = lane_s(Runs(), np.zeros((1, 8, 8, 3), np.uint8), 2, 0.0)

    assert cost_s < 0.3  # of two lanes, one has been at work for so long


def test_a_cost_is_that_of_one_image_of_a_run(monkeypatch):
    """Else a batch would seem as much dearer as it is larger, and none be formed."""
    monkeypatch.setattr(arrangement, "lane_s", lambda *_: 0.08)

    class Runs:
        def run(self, batch):
            return batch

    assert measured(Runs(), (8, 8, 3), (1, 8)) == {1: 0.08, 8: 0.01}


class Cpu:
    """A session on a CPU, of one thread or more; who has given memory back."""

    shape = (8, 8, 3)

    def __init__(self, threads: int) -> None:
        self.threads, self.has_given_back = threads, False

    def give_back(self) -> None:
        """Free what large runs took."""
        self.has_given_back = True


@pytest.mark.parametrize(
    ("decode_s", "lanes", "abreast"),
    [
        (0.002, 1, 1),  # 3 ms with all cores and 2 to decode; one of two needs 12
        (0.01, 2, 2),  # 10 to decode, in which all others but one would rest
        (0.0022, 2, 2),  # 5.2 ms against 6.1, which may be wrong by so much
    ],
)
def test_all_cores_have_one_lane_where_decoding_leaves_them_work(
    monkeypatch, decode_s, lanes, abreast
):
    """Whatever is tried, no session keeps the memory of its large batches."""
    narrow, wide = Cpu(1), Cpu(2)
    costs_s, tried = {narrow: 0.01, wide: 0.003}, []

    def measure(session, _, batches, lanes=1):
        tried.append((session.threads, tuple(batches), lanes))
        return dict.fromkeys(batches, costs_s[session])

    monkeypatch.setattr(arrangement, "available_cores", lambda: 2)
    monkeypatch.setattr(
        arrangement, "Session", SimpleNamespace(load=lambda *_, threads: wide)
    )
    monkeypatch.setattr(arrangement, "measured", measure)

    found = arrange_on_cpu(b"", narrow, Settings(), decode_s=decode_s)

    assert (found.lanes, found.abreast) == (lanes, abreast)
    assert (found.narrow_s, found.lone.threads, found.lone.batch) == (0.01, 2, 1)
    assert narrow.has_given_back
    assert wide.has_given_back
    # as they would run: lanes side by side, all cores alone
    assert tried == [
        (1, CPU_BATCHES, 2),
        (1, (1,), 1),
        (2, (1,), 1),
        (2, (WIDE_BATCH,), 1),
    ]


@pytest.fixture
def arrange(monkeypatch):
    """`arrange(cores=1, lanes=2)` → how a network is served that all cores run at a
    tenth of the cost, and each image of a batch of four at twice that of a lone one.
    """

    def build(*, cores: int = 2, **settings: object) -> Arrangement:
        def load(*_: object, threads: int) -> Cpu:
            build.loads += 1
            return Cpu(threads)

        wide = SimpleNamespace(load=load)
        monkeypatch.setattr(arrangement, "available_cores", lambda: cores)
        monkeypatch.setattr(arrangement, "Session", wide)
        monkeypatch.setattr(
            arrangement,
            "measured",
            lambda session, _, batches, lanes=1: {
                n: (0.01 if n == 1 else 0.02) / (10 if session.threads > 1 else 1)
                for n in batches
            },
        )
        return arrange_on_cpu(b"", Cpu(1), Settings(**settings), decode_s=0.0)

    build.loads = 0
    return build


def test_of_all_cores_a_crowd_has_the_batch_that_is_best(arrange):
    """Which may be none."""
    found = arrange()

    assert (found.lanes, found.crowd.threads) == (1, 2)
    assert (found.crowd.batch, found.crowd.cost_s) == (1, 0.001)


def test_lanes_and_batches_that_are_set_are_kept_where_others_would_be_faster(arrange):
    """Each by itself: the other is still measured."""
    lanes, batch = arrange(lanes=2), arrange(batch=4)

    assert (lanes.lanes, lanes.crowd.threads) == (2, 1)
    assert (batch.lanes, batch.crowd.batch) == (1, 4)


def test_one_core_has_one_session(arrange):
    """A wide one would be the same again, and take as much memory."""
    found = arrange(cores=1)

    assert arrange.loads == 0
    assert (found.lanes, found.abreast) == (1, 1)


def test_what_runs_on_the_event_loop_is_chosen_by_what_it_costs_there(
    load, monkeypatch
):
    """With one thread: that many would be faster for a lone image says nothing."""
    measure = arrangement.measure_lone

    def faster_with_more_threads(session):
        return replace(measure(session), cost_s=0.001 if session.threads == 1 else 1e-5)

    monkeypatch.setattr(arrangement, "available_cores", lambda: 2)
    monkeypatch.setattr(arrangement, "measure_lone", faster_with_more_threads)

    model = load()

    assert model.arrangement.lone.threads == 2
    assert not model.inline


class Device:
    """Sessions of a device that has room for batches of so many, and no more."""

    shape = (8, 8, 3)

    def __init__(self, room: int) -> None:
        self._room, self.loads = room, 0
        self.ran: set[int] = set()  # sizes of the batches that there was room for

    def load(self, graph, *, device, threads):
        """One more session, of its own size."""
        assert (device, threads) == ("cuda", 1)
        self.loads += 1
        return self

    def run(self, batch):
        """Logits, if there is room."""
        if len(batch) > self._room:
            raise OutOfMemoryError("the device is out of memory")
        self.ran.add(len(batch))
        return np.zeros((len(batch), 2), np.float32)


@pytest.mark.parametrize(
    ("room", "batch", "sizes", "most"),
    [
        (64, "auto", (1, 2, 4, 8, 16, 32, 64), 64),
        (10, "auto", (1, 2, 4, 8), 8),
        (64, 6, (1, 2, 4, 8), 6),
        (64, 8, (1, 2, 4, 8), 8),
        (4, 6, (1, 2, 4), 4),
    ],
)
def test_a_device_has_a_session_for_each_size_that_is_wanted_and_fits(
    monkeypatch, tmp_path, room, batch, sizes, most
):
    """A small one serves smaller batches; it is no reason not to start."""
    device = Device(room)
    monkeypatch.setattr("service.engine.arrangement.Session", device)
    monkeypatch.setattr("service.engine.arrangement.CUDA_MEASURE_S", 0.0)

    settings = Settings(models=tmp_path, batch=batch)
    found = arrange_on_cuda({"colors/1": (b"", device)}, settings)["colors/1"]

    device.ran.clear()
    for n in range(1, 65):
        found.crowd.session.run(np.zeros((n, *device.shape), np.uint8))
    assert device.ran == set(sizes)
    assert found.crowd.batch <= most
    assert batch == "auto" or found.crowd.batch == most
    assert device.loads <= len(sizes)  # the first was there; one did not fit


def test_what_pads_a_batch_on_a_device_costs_as_much_as_an_image(monkeypatch, tmp_path):
    """Without a setting, a larger batch may cost a tenth more an image."""
    device, cost_s = Device(64), {1: 0.03, 2: 0.02, 4: 0.01, 8: 0.0105}
    monkeypatch.setattr(arrangement, "Session", device)
    monkeypatch.setattr(
        arrangement,
        "measured",
        lambda _, __, sizes, **___: {n: cost_s.get(n, 0.02) for n in sizes},
    )

    six, free = (
        arrange_on_cuda(
            {"colors/1": (b"", device)}, Settings(models=tmp_path, batch=batch)
        )["colors/1"]
        for batch in (6, "auto")
    )

    assert (six.crowd.batch, six.crowd.cost_s) == (6, pytest.approx(0.0105 * 8 / 6))
    assert (free.crowd.batch, free.crowd.cost_s) == (8, 0.0105)
    assert (six.abreast, free.abreast) == (1, 1)


def test_a_device_has_as_many_lanes_as_are_set(monkeypatch, tmp_path):
    """Each has a batch in its memory."""
    device = Device(64)
    monkeypatch.setattr("service.engine.arrangement.Session", device)
    monkeypatch.setattr("service.engine.arrangement.CUDA_MEASURE_S", 0.0)

    found = [
        arrange_on_cuda(
            {"colors/1": (b"", device)}, Settings(models=tmp_path, lanes=lanes, batch=1)
        )["colors/1"]
        for lanes in ("auto", 2)
    ]

    assert [each.lanes for each in found] == [CUDA_LANES, 2]


class SharedDevice:
    """Memory for so many images, in which a session keeps what its runs have needed."""

    def __init__(self, room: int, full: str = "out of memory") -> None:
        self.room, self.full, self.used = room, full, 0

    def load(self, graph, *, device, threads):
        """One more session."""
        return SharedSession(self)

    def free(self, held: list[int]) -> None:
        """What a session held that is gone."""
        self.used -= sum(held)


class SharedSession:
    """A session whose runs need room on a device that others use too."""

    shape = (8, 8, 3)

    def __init__(self, device: SharedDevice) -> None:
        self._device = device
        self._held: list[int] = []
        weakref.finalize(self, device.free, self._held)

    def run(self, batch):
        """Logits; the session has grown even if it then had no room.

        Runs in lanes are side by side, and need that much more.
        """
        here = threading.current_thread() is threading.main_thread()
        needed = len(batch) * (1 if here else CUDA_LANES)
        more = max(0, needed - sum(self._held))
        if more:
            self._held.append(more)
            self._device.used += more
        if self._device.used > self._device.room:
            raise _translated(RuntimeError(self._device.full))
        return np.zeros((len(batch), 2), np.float32)


@pytest.mark.parametrize(
    ("room", "sizes"),
    [
        (9 * (1 + 2 + 4), [(1, 2, 4)] * 3),
        # In one run the next size fits, but not in all lanes.
        (9 * (1 + 2 + 4) + 8, [(1, 2, 4)] * 3),
        # The first has room for one size more, the others then not.
        (9 * (1 + 2 + 4) + 24 + 8, [(1, 2, 4, 8), (1, 2, 4), (1, 2, 4)]),
        (9 * 127, [(1, 2, 4, 8, 16, 32, 64)] * 3),
        (9, [(1,)] * 3),
    ],
)
@pytest.mark.parametrize(
    "full",
    [
        "Failed to allocate memory for requested buffer of size 411041792",
        # a device that is full, as cuDNN and cuBLAS say it
        "CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED ; GPU=0",
    ],
)
def test_bundles_of_one_device_grow_together_until_it_is_full(
    monkeypatch, tmp_path, room, sizes, full
):
    """The first must not take what the last needs to run at all. What did not fit is
    given back."""
    device = SharedDevice(room, full)
    monkeypatch.setattr(arrangement, "Session", device)
    monkeypatch.setattr(arrangement, "CUDA_MEASURE_S", 0.0)
    graphs = {f"model/{n}": (b"", SharedSession(device)) for n in (1, 2, 3)}

    gc.disable()  # it may come much later, or never: the start freezes what it finds
    try:
        found = arrange_on_cuda(graphs, Settings(models=tmp_path))
    finally:
        gc.enable()

    assert [tuple(each.crowd.session._sessions) for each in found.values()] == sizes
    assert device.used == CUDA_LANES * sum(sum(each) for each in sizes)


def test_a_device_without_room_for_one_image_says_so(monkeypatch, tmp_path, load):
    """Nothing could be served. It says of which bundle, and what would help."""
    device = SharedDevice(CUDA_LANES)
    monkeypatch.setattr(arrangement, "Session", device)
    proven = prove(load_bundle(tmp_path / "colors"), "auto", "cpu")
    full = replace(proven, session=SharedSession(SharedDevice(CUDA_LANES - 1)))

    with pytest.raises(OutOfMemoryError, match=r"^model/2: .*out of memory"):
        arrange_on_cuda(
            {f"model/{n}": (b"", SharedSession(device)) for n in (1, 2)},
            Settings(models=tmp_path),
        )
    with pytest.raises(
        OutOfMemoryError, match=r"^colors/1: .*out of memory.*fewer bundles .*LOAD"
    ):
        models.arrange([full], Settings(models=tmp_path), device="cuda")


def test_every_cost_of_the_arrangement_is_measured(load):
    """None is a guess."""
    model = load()

    assert model.arrangement.crowd.cost_s > 0
    assert model.arrangement.lone.cost_s > 0
    assert model.decode_s > 0


def test_settings_go_before_what_was_measured(load):
    """Somebody may know better, or share the machine."""
    found = load(lanes=3, batch=5).arrangement

    assert (found.lanes, found.crowd.batch) == (3, 5)


def test_lanes_beyond_the_cores_run_no_more_side_by_side(load):
    """However many there are."""
    found = load(lanes=available_cores() + 2).arrangement

    assert found.abreast == available_cores()


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
    lanes = len(engine._lanes._lanes)
    await engine.close()

    assert found == (inline, ahead)
    assert lanes == 3
