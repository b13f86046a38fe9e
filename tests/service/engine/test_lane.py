"""One lane, a real thread, on a model that runs when the test says so."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from classifier.decode import DecodeLimits, ImageInfo
from classifier.errors import SessionError
from classifier.manifest import PreprocessSpec
from classifier.preprocess import Preprocessed
from service.contract import Timing
from service.engine import lane as lane_module
from service.engine.backlog import Backlog
from service.engine.lane import Lane
from service.engine.run import outcome, stacked
from service.engine.ticket import Results, Ticket
from service.errors import DeadlineExceededError, EngineFailedError
from tests.synthetic import png

MODEL = ("model", 1)
LONG_AGO = 0.0  # of the monotonic clock
RUN_S = 0.001


def until(true: Callable[[], bool]) -> None:
    """Look until something is so."""
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends


class Parts:
    """What a lane is built of, and what it tells."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.backlog = Backlog(capacity=100, lanes=1)
        self.backlog.add_model(MODEL, best_batch=1, run_s=RUN_S)
        self.turns = threading.Semaphore(0)  # each lets one run end, in an error
        measured = SimpleNamespace(session=SimpleNamespace(run=self._run))
        arrangement = SimpleNamespace(lone=measured, crowd=measured)
        self.golden = np.full((1, 1, 3), 1, np.uint8)
        self.models = {
            MODEL: SimpleNamespace(
                key=MODEL, arrangement=arrangement, golden=self.golden
            )
        }
        self.golden_runs = True
        self.settled: Results = []
        self.deaths: list[BaseException] = []

    def lane(self) -> Lane:
        """A lane of these parts."""
        return Lane(
            "lane",
            backlog=self.backlog,
            changed=self.changed,
            models=self.models,
            limits=DecodeLimits(),
            settle=self.settled.extend,
            died=lambda _, error: self.deaths.append(error),
        )

    def offer(self, *, deadline: float | None = None) -> Ticket:
        """An image that is decoded already."""
        ready = Preprocessed(np.zeros((1, 1, 3), np.uint8), ImageInfo(1, 1, "PNG"), ())
        ticket = Ticket(MODEL, b"", LONG_AGO, deadline, ready=ready)
        with self.changed:
            self.backlog.offer([ticket], LONG_AGO)
            self.changed.notify()
        return ticket

    def serve(self, images: int) -> None:
        """Run a lane until so many are settled, and to its end."""
        lane = self.lane()
        lane.start()
        until(lambda: len(self.settled) == images)
        lane.close()
        lane.thread.join()

    def _run(self, batch: np.ndarray) -> np.ndarray:
        if (batch == self.golden).all() and self.golden_runs:
            return np.zeros((1, 2), np.float32)
        self.turns.acquire()
        raise SessionError("the run ends here")


@pytest.fixture
def parts() -> Parts:
    """Of a lane whose batches hold one image."""
    return Parts()


def test_an_image_that_waited_too_long_hears_so_before_the_batch(parts):
    """Which may take long, hang or, as here, break."""
    late = parts.offer(deadline=LONG_AGO + 1)
    parts.offer()
    parts.models.clear()
    lane = parts.lane()

    lane.start()
    lane.thread.join()

    ((ticket, fate),) = parts.settled
    assert ticket is late
    assert isinstance(fate, DeadlineExceededError)
    assert [type(error) for error in parts.deaths] == [KeyError]


def test_a_lane_is_not_given_up_for_a_batch_that_is_over(parts):
    """It may end just when it was found to hang; the next one has done nothing."""
    lane = parts.lane()
    first, second = parts.offer(), parts.offer()
    lane.start()
    until(lambda: lane.began is not None)
    began = lane.began
    parts.turns.release()
    until(lambda: lane.began not in (None, began))

    held = lane.abandon(began)
    parts.turns.release()
    until(lambda: len(parts.settled) == 2)
    lane.close()
    lane.thread.join()

    assert held is None
    assert [ticket for ticket, _ in parts.settled] == [first, second]


def test_a_lane_that_is_given_up_keeps_no_place_and_says_no_more(parts):
    """Its run may end all the same, when its images have had an error long since."""
    lane = parts.lane()
    ticket = parts.offer()
    lane.start()
    until(lambda: lane.began is not None)

    held = lane.abandon(lane.began)
    parts.turns.release()
    lane.thread.join()

    assert held == [ticket]
    assert (parts.backlog.busy, parts.settled, parts.deaths) == (0, [], [])


@pytest.mark.parametrize("images", [1, 2])
def test_a_run_teaches_what_a_crowd_costs_unless_it_was_of_a_lone_image(parts, images):
    """Which may have had all cores: its price is not that of one lane among many."""
    for _ in range(images):
        parts.offer()
        parts.turns.release()

    parts.serve(images)

    learned = parts.backlog._lines[MODEL].run_s != RUN_S
    assert learned == (images > 1)


@pytest.mark.parametrize("images", [0, 1])
def test_what_is_no_image_teaches_nothing_of_what_one_costs(parts, images):
    """It is refused in no time: a flood of it would have more images accepted than can
    be answered before their deadlines. What is decoded beside it teaches as ever."""
    parts.backlog = Backlog(capacity=100, lanes=1)
    parts.backlog.add_model(MODEL, best_batch=8, run_s=RUN_S, decode_s=RUN_S)
    spec = PreprocessSpec(
        height=1,
        width=1,
        color="rgb",
        resize="squash",
        short_side=None,
        interpolation="bilinear",
        background=(0, 0, 0),
    )
    parts.models[MODEL].manifest = SimpleNamespace(preprocess=spec)
    for data in [b"no image"] * 4 + [png((9, 0, 0))] * images:
        parts.backlog.offer([Ticket(MODEL, data, LONG_AGO, None)], LONG_AGO)
    parts.turns.release()

    parts.serve(4 + images)

    assert (parts.backlog.cost_s(MODEL) == 2 * RUN_S) == (images == 0)


def test_a_lane_ends_when_no_image_can_be_run_any_more(parts, monkeypatch):
    """Not even a golden one, which no sender can have made to fail: the device is
    broken. Those whose images failed are told first."""
    monkeypatch.setattr(lane_module, "DOUBTED_AFTER_S", 0.0)
    parts.golden_runs = False
    parts.offer()
    parts.turns.release(2)
    lane = parts.lane()

    lane.start()
    lane.thread.join()

    assert [type(error) for error in parts.deaths] == [SessionError]
    assert [type(fate) for _, fate in parts.settled] == [EngineFailedError]


def test_a_lane_outlives_images_that_all_fail_while_a_golden_one_does_not(
    parts, monkeypatch
):
    """They are to blame, however many come in a row."""
    monkeypatch.setattr(lane_module, "DOUBTED_AFTER_S", 0.0)
    for _ in range(5):
        parts.offer()
        parts.turns.release()

    parts.serve(5)

    assert parts.deaths == []


def test_the_phases_of_an_image_add_up_to_its_time():
    """What was decoded ahead is told as decoding, and not as waiting once more."""
    ready = Preprocessed(np.zeros((1, 1, 3), np.uint8), ImageInfo(1, 1, "PNG"), ())
    ticket = Ticket(MODEL, b"", 1.0, None, ready=ready)
    ticket.ahead_s, ticket.taken, ticket.decoded = 0.5, 2.5, 2.75
    row = np.zeros(2, np.float32)

    timing = outcome(ticket, (row, row), (4.75, 8.75, 3)).timing

    assert timing == Timing(
        decode_ms=750, queue_ms=1000, batch_ms=2000, infer_ms=4000, batch_size=3
    )
    phases_ms = timing.decode_ms + timing.queue_ms + timing.batch_ms + timing.infer_ms
    assert phases_ms == 1000 * (8.75 - ticket.arrived)


class Explaining:
    """Class maps of a session; what was settled when each was begun, and who leaves."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.settled_before = parts, []
        self.leaves: Ticket | None = None

    def run_with_class_maps(self, batch: np.ndarray) -> None:
        """Take some time, and end in an error."""
        self.settled_before.append([ticket for ticket, _ in self.parts.settled])
        if self.leaves is not None:
            self.leaves.abandon()
        raise SessionError("the run ends here")


@pytest.fixture
def explaining(parts) -> Explaining:
    """The session of those parts, whose batches hold eight images."""
    parts.backlog = Backlog(capacity=100, lanes=1)
    parts.backlog.add_model(MODEL, best_batch=8, run_s=RUN_S)
    session = Explaining(parts)
    parts.models[MODEL].session = session
    return session


def test_images_to_be_explained_do_not_hold_up_the_plain_ones(parts, explaining):
    """Their runs are long, and come one after the other. Who has left has none."""
    first, plain, last = parts.offer(), parts.offer(), parts.offer()
    first.explain = last.explain = True
    explaining.leaves = last
    parts.turns.release()

    parts.serve(2)

    assert explaining.settled_before == [[plain]]
    assert [ticket for ticket, _ in parts.settled] == [plain, first]


def test_each_explanation_is_a_step(parts, explaining, monkeypatch):
    """Many of them may take longer than any run of a lane that does not hang."""
    for _ in range(3):
        parts.offer().explain = True
    steps = []
    told = property(lambda _: steps[-1], lambda _, at: steps.append(at))
    monkeypatch.setattr(Lane, "stepped", told, raising=False)

    parts.serve(3)

    assert len(steps) == 1 + 1 + 3 + 3  # made, taken, decoded each, explained each


def test_a_model_pays_for_the_time_that_explaining_takes(parts, explaining):
    """Or others would wait for lanes that it has had already."""
    parts.backlog.add_model(MODEL, best_batch=8, run_s=1e-9)
    parts.offer().explain = True

    parts.serve(1)

    assert parts.backlog._lines[MODEL].used_s > 2e-9


def test_decoding_is_no_part_of_a_run_that_hangs(parts, monkeypatch):
    """Each image is a step, decoded or refused as undecodable, and so is each run."""
    parts.backlog = Backlog(capacity=100, lanes=1)
    parts.backlog.add_model(MODEL, best_batch=8, run_s=RUN_S)
    for _ in range(3):
        parts.offer()
    parts.models[MODEL].manifest = SimpleNamespace(preprocess=None)
    parts.backlog.offer([Ticket(MODEL, b"", LONG_AGO, None)], LONG_AGO)
    steps = []
    told = property(lambda _: steps[-1], lambda _, at: steps.append(at))
    monkeypatch.setattr(Lane, "stepped", told, raising=False)
    parts.turns.release(10)  # a batch that fails is run in parts

    parts.serve(4)

    assert len(steps) == 1 + 1 + 4 + 1  # made, taken, decoded each, run


@pytest.mark.parametrize("images", [1, 2, 65])
@pytest.mark.parametrize(
    ("dtype", "shape"), [(np.uint8, (5, 3, 1)), (np.float32, (7,))]
)
def test_a_batch_holds_its_images_one_after_the_other(dtype, shape, images):
    """Also of a view without memory, which an abandoned ticket has instead of pixels.

    It may be of one number or of a part of another array.
    """
    each = [np.full(shape, n, dtype) for n in range(images)]
    each[-1] = np.broadcast_to(dtype(9), shape)
    each[0] = np.arange(2 * np.prod(shape), dtype=dtype).reshape(*shape, 2)[..., 1]

    batch = stacked(each)

    assert batch.dtype == dtype
    np.testing.assert_array_equal(batch, np.stack(each))
