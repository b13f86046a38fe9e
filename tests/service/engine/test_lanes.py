"""Lanes that die or hang, on a model that hangs for as long as the test says."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from classifier.decode import DecodeLimits, ImageInfo
from classifier.errors import SessionError
from classifier.preprocess import Preprocessed
from service.engine.backlog import Backlog
from service.engine.lane import Lane
from service.engine.lanes import CHECKS_A_LIMIT, LATE, NO_LANE, Lanes
from service.engine.ticket import Results, Ticket
from service.errors import EngineFailedError
from service.logs import build_log
from service.settings import Settings
from tests.service.conftest import threads_of, until

MODEL = ("model", 1)


class Hanging:
    """A model that hangs until `released`; then its runs end, in an error."""

    def __init__(self) -> None:
        self.released = threading.Event()
        measured = SimpleNamespace(session=SimpleNamespace(run=self._run))
        self.arrangement = SimpleNamespace(lone=measured, crowd=measured)
        self.key = MODEL

    def _run(self, batch: object) -> None:
        self.released.wait(20)
        raise SessionError("the run ends here")


class Parts:
    """Lanes of that model; what they settle."""

    def __init__(self, *, log: object, hang_timeout_s: float) -> None:
        self.model = Hanging()
        self.settled: Results = []
        self.gave_up = asyncio.Event()
        self._changed = threading.Condition()
        self._backlog = Backlog(capacity=100, lanes=2)
        self._backlog.add_model(MODEL, best_batch=1, run_s=0.001)
        self.lanes = Lanes(
            self._open_lane,
            hang_timeout_s=hang_timeout_s,
            settle=self.settled.extend,
            give_up=self.gave_up.set,
            log=log,
        )
        self.lanes.open(2)

    def offer(self, images: int) -> None:
        """Images that are decoded already."""
        for _ in range(images):
            pixels = np.zeros((1, 1, 3), np.uint8)
            ready = Preprocessed(pixels, ImageInfo(1, 1, "PNG"), ())
            with self._changed:
                ticket = Ticket(MODEL, b"", 0.0, None, ready=ready)
                self._backlog.offer([ticket], 0.0)
                self._changed.notify()

    def _open_lane(
        self, name: str, died: Callable[[Lane, BaseException], None]
    ) -> Lane:
        return Lane(
            name,
            backlog=self._backlog,
            changed=self._changed,
            models={MODEL: self.model},
            limits=DecodeLimits(),
            settle=self.settled.extend,
            died=died,
        )


@asynccontextmanager
async def running(
    *, log: object = None, hang_timeout_s: float = 0.02
) -> AsyncIterator[Parts]:
    """Two lanes, which may take so long for an image."""
    parts = Parts(log=log or build_log(Settings()), hang_timeout_s=hang_timeout_s)
    try:
        yield parts
    finally:
        parts.model.released.set()
        await parts.lanes.close()


class Unwritable:
    """A log whose disk is gone."""

    def error(self, *_: object, **__: object) -> None:
        """Fail, in a way that nobody foresaw."""
        raise ValueError("I/O operation on closed file")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_lane_that_dies_is_replaced_even_if_that_cannot_be_logged(monkeypatch):
    """Whoever waits for its images must not pay for the log."""
    async with running(log=Unwritable(), hang_timeout_s=60.0) as parts:
        dying = threads_of(parts.lanes)
        for lane in parts.lanes._lanes:
            monkeypatch.setattr(lane, "_decode", lambda *_: 1 / 0)
        parts.offer(1)
        await until(lambda: len(parts.settled) == 1)
        after = threads_of(parts.lanes)
        # its exception must be over before the test is, which alone expects one
        await until(lambda: not all(thread.is_alive() for thread in dying))

    assert len(after) == 2
    assert after != dying


async def test_a_machine_that_stands_still_now_and_then_loses_no_lane_for_good():
    """Every lane at work looks as if it hung, and comes back a moment later."""
    async with running() as parts:
        for turn in (1, 2):
            parts.model.released.clear()
            parts.offer(2)
            await until(lambda turn=turn: len(parts.settled) == 2 * turn)
            hung = [lane.thread for lane in parts.lanes._lost]
            parts.model.released.set()
            await until(lambda each=hung: not any(t.is_alive() for t in each))

        assert parts.lanes.trouble is None
        assert len(parts.lanes._lanes) == 2


async def test_with_lanes_that_come_back_the_process_is_ready_again():
    """What was missing is opened, and readiness says so."""
    async with running() as parts:
        parts.offer(4)  # two that hang, and two for those in their places
        await until(lambda: parts.lanes.trouble is not None)
        trouble = parts.lanes.trouble
        parts.model.released.set()
        await until(lambda: parts.lanes.trouble is None)

        assert "lanes hang" in trouble
        assert len(parts.lanes._lanes) == 2


async def test_lanes_that_were_left_before_the_end_are_told_of_at_the_end():
    """The process ends otherwise where threads of it hang."""
    async with running() as parts:
        parts.offer(1)
        await until(lambda: parts.lanes._lost)
        left = await parts.lanes.close()

    assert left == 1


async def test_whose_run_hangs_at_the_end_hears_so(monkeypatch):
    """The process ends without it, and says that it has left something behind."""
    monkeypatch.setattr("service.engine.lanes.JOIN_S", 0.01)
    async with running(hang_timeout_s=60.0) as parts:
        parts.offer(1)
        await until(lambda: any(lane.began for lane in parts.lanes._lanes))
        left = await parts.lanes.close()
        told = [str(fate) for _, fate in parts.settled]

    assert left >= 1  # the other may not have ended yet, either
    assert told == [str(EngineFailedError(LATE))]


async def test_a_lane_that_dies_at_the_end_is_not_replaced(monkeypatch):
    """The new one would be told of as one that hangs, and the process end so."""
    go_on = threading.Event()

    def die(*_: object) -> None:
        go_on.wait(20)
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("service.engine.lanes.JOIN_S", 20.0)
    async with running(hang_timeout_s=60.0) as parts:
        for lane in parts.lanes._lanes:
            monkeypatch.setattr(lane, "_decode", die)
        parts.offer(1)
        await until(lambda: any(lane.began for lane in parts.lanes._lanes))
        closing = asyncio.create_task(parts.lanes.close())
        await asyncio.sleep(0)
        go_on.set()
        left = await closing

    assert left == 0
    assert len(parts.settled) == 1


async def test_lanes_that_do_not_come_back_are_given_up():
    """After as long again as made them look hung, only a new process helps."""
    async with running() as parts, asyncio.timeout(20):
        parts.offer(4)
        await until(lambda: parts.lanes.trouble is not None)
        at_once = parts.gave_up.is_set()
        await parts.gave_up.wait()

    assert not at_once


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_without_a_thread_for_a_lane_readiness_is_red_until_there_is_one(
    monkeypatch,
):
    """A limit of processes may be reached just when a lane dies: the watchdog tries
    again."""
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name.startswith("lane-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    async with running() as parts:
        dying = threads_of(parts.lanes)
        for lane in parts.lanes._lanes:
            monkeypatch.setattr(lane, "_decode", lambda *_: 1 / 0)
        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", refused)
            parts.offer(2)
            await until(lambda: len(parts.settled) == 2)
            trouble, threads = parts.lanes.trouble, threads_of(parts.lanes)
            for _ in range(10):  # looks of the watchdog, which must outlive them
                await asyncio.sleep(0.02 / CHECKS_A_LIMIT)
        await until(lambda: parts.lanes.trouble is None)
        await until(lambda: len(parts.lanes._lanes) == 2)
        after = threads_of(parts.lanes)
        await until(lambda: not any(thread.is_alive() for thread in dying))

    assert (trouble, threads) == (NO_LANE, [])
    assert len(after) == 2


async def test_a_lane_that_is_wanted_no_longer_ends():
    """Members with lanes of their own have its core."""
    async with running(hang_timeout_s=60.0) as parts:
        kept, surplus = threads_of(parts.lanes)
        parts.lanes.open(1)
        await asyncio.to_thread(surplus.join, 10)

        assert not surplus.is_alive()
        assert threads_of(parts.lanes) == [kept]


async def test_a_lane_whose_death_was_not_told_is_replaced():
    """What tells may fail as well, where there is no memory."""
    async with running() as parts:
        (dead, _) = parts.lanes._lanes
        dead.close()
        dead.thread.join()
        await until(lambda: dead not in parts.lanes._lanes)

        assert len(parts.lanes._lanes) == 2
        assert parts.lanes.trouble is None
