"""graph + machine → **arrangement**: lanes x threads x batch, as measured here.

On a CPU a model has two sessions of one graph: the narrow one runs in the thread that
calls it, so that lanes run side by side; the wide one puts all cores on one run. Which
of them serves a crowd (all lanes are at work), and which a lone image (nothing else
runs), is measured, never assumed. On a GPU there is a session for each padded batch
size.
"""

import gc
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from classifier.errors import SessionError
from classifier.hardware import available_cores
from classifier.session import Batch, Logits, Session
from service.engine.buckets import SIZES, Buckets
from service.settings import Settings

CPU_BATCHES = (1, 2, 4, 8)  # beyond, the pixels of a batch fall out of the cache
WIDE_BATCH = 4  # beside a batch of one, which is measured for the lone image anyway
# Batches are as good as the best when an image costs no more than this share more.
NEARLY = 0.03
# Where single images meet batch requests, they pay for a large run with a long wait:
# there, a run that is over sooner may cost so much more an image.
GENTLY = 0.15
# What a run costs beyond the session's time, and small batches therefore lose: a batch
# is cut and settled, the event loop wakes up, the caches change hands.
BESIDE_RUN_S = 0.001
# On a GPU: to cut a batch and to settle its tickets takes Python as long as the device
# needs for some images, and only the device's time is measured.
CUDA_NEARLY = 0.10
# Fewer lanes than cores must gain more than what a measurement can be wrong by.
FEWER_LANES_GAIN = 0.15
# Each point of a curve is measured for so long in each turn, and counts at its least: a
# moment in which the machine does something else shall not choose the batch.
MEASURE_S, TURNS = 0.03, 3
# No further turn begins after so long: on a busy machine a start takes long enough
# already, and three turns would be no more exact than one.
ENOUGH_S = 0.4
CUDA_MEASURE_S = 0.05  # the same on a GPU, where a run of a large batch takes longer
# Two batches in flight, one being copied there and one running, and a third being cut.
CUDA_LANES = 3


class Runs(Protocol):
    """What a lane needs of a session."""

    def run(self, batch: Batch) -> Logits:
        """uint8 [N, H, W, C] → float32 [N, K]."""


@dataclass(frozen=True, slots=True)
class MeasuredSession:
    """A session, the batch sizes that suit it, and what its runs cost."""

    session: Runs
    threads: int
    batch: int  # most images in one run
    gentle_batch: int  # the smallest that is not much worse
    cost_s: float  # seconds an image


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How one model is served best on this machine."""

    lanes: int
    crowd: MeasuredSession  # of each lane while all are at work
    lone: MeasuredSession  # of an image that has the machine for itself
    narrow_s: float  # seconds of a lone image in the thread that asks, and no other
    # Runs of a crowd that leave each other their speed: as many as there are cores, and
    # one on a device, or with all cores, which does more in one run than in several.
    abreast: int


def arrange_on_cpu(
    graph: bytes, narrow: Session, settings: Settings, *, decode_s: float
) -> Arrangement:
    """Measure a one-thread run in each lane against all cores on one run.

    A lane decodes as well, which takes `decode_s` of one core whatever the session.
    """
    cores = available_cores()
    lanes = cores if settings.lanes == "auto" else settings.lanes
    crowd = fastest(narrow, CPU_BATCHES, settings, lanes=lanes)
    lone = measure_lone(narrow)
    narrow_s = lone.cost_s
    if cores == 1:
        return Arrangement(lanes, crowd, lone, lone.cost_s, abreast=1)
    wide = Session.load(graph, threads=cores)
    alone = measure_lone(wide)
    if alone.cost_s < lone.cost_s:
        lone = alone
    if settings.lanes == "auto":
        one_lane = fastest(wide, (WIDE_BATCH,), settings, lanes=1)
        if alone.cost_s < one_lane.cost_s and settings.batch == "auto":
            one_lane = alone
        many_s = (crowd.cost_s + decode_s) / lanes
        if one_lane.cost_s + decode_s < many_s * (1 - FEWER_LANES_GAIN):
            return Arrangement(1, one_lane, lone, narrow_s, abreast=1)
    return Arrangement(lanes, crowd, lone, narrow_s, abreast=cores)


def arrange_on_cuda(
    models: Mapping[str, tuple[bytes, Session]], settings: Settings
) -> dict[str, Arrangement]:
    """Sessions of each padded size for every graph, by the names of their bundles.

    All lanes of all of them share one device. Each has its sessions of one size before
    any has one of the next: where there is no room for everything, the first bundle
    must not take what the last one needs to run at all.

    Raises:
        OutOfMemoryError, SessionError: one does not run even a single image.
    """
    sizes: tuple[int, ...] = SIZES
    if settings.batch != "auto":
        sizes = tuple(n for n in SIZES if n == 1 or n // 2 < settings.batch)
    growing = [
        Growing(name, graph, proven, settings)
        for name, (graph, proven) in models.items()
    ]
    for size in sizes:
        for each in growing:
            each.grow(size)
    return {each.name: each.arrangement() for each in growing}


class Growing:
    """The sessions of one graph on a device, from the smallest up."""

    def __init__(
        self, name: str, graph: bytes, proven: Session, settings: Settings
    ) -> None:
        self.name = name
        self._graph, self._proven, self._settings = graph, proven, settings
        self._lanes = CUDA_LANES if settings.lanes == "auto" else settings.lanes
        self._sessions: dict[int, Session] = {}
        self._curve: dict[int, float] = {}
        self._full = False

    def grow(self, size: int) -> None:
        """Add the session of a size, unless there is no room for it.

        Raises:
            OutOfMemoryError, SessionError: it is the first one.
        """
        if self._full:
            return
        try:
            # one thread: on a device it only waits
            session = (
                Session.load(self._graph, device="cuda", threads=1)
                if self._sessions
                else self._proven
            )
            self._curve |= measured(
                session,
                session.shape,
                (size,),
                lanes=self._lanes,
                measure_s=CUDA_MEASURE_S,
            )
        except SessionError as error:
            if not self._sessions:
                raise type(error)(f"{self.name}: {error}") from error
            # Whatever it says, for a full device is called by many names: smaller
            # batches have just run.
            self._full = True
        else:
            self._sessions[size] = session
            return
        gc.collect()  # the frames of the error still hold the session and its memory

    def arrangement(self) -> Arrangement:
        """What suits this graph of the sizes that it has."""
        buckets = Buckets(self._sessions)
        lone_s = measured(buckets, self._proven.shape, (1,))[1]
        lone = MeasuredSession(buckets, 1, 1, 1, lone_s)
        if self._settings.batch == "auto":
            crowd = MeasuredSession(buckets, 1, *best(self._curve, nearly=CUDA_NEARLY))
        else:
            largest = max(self._curve)
            most = min(self._settings.batch, largest)
            # padding costs as much as images
            cost_s = self._curve[largest] * largest / most
            crowd = MeasuredSession(buckets, 1, most, most, cost_s)
        return Arrangement(self._lanes, crowd, lone, lone_s, abreast=1)


def measure_lone(session: Session) -> MeasuredSession:
    """A session for images that come alone."""
    cost_s = measured(session, session.shape, (1,))[1]
    return MeasuredSession(session, session.threads, 1, 1, cost_s)


def fastest(
    session: Session, batches: Sequence[int], settings: Settings, *, lanes: int
) -> MeasuredSession:
    """The batch size that suits a session best, unless the settings say one."""
    tried = batches if settings.batch == "auto" else (settings.batch,)
    curve = measured(session, session.shape, tried, lanes=lanes)
    session.give_back()  # an idle model must not hold the memory of large batches
    chosen = best(curve, beside_s=BESIDE_RUN_S)
    return MeasuredSession(session, session.threads, *chosen)


def best(
    curve: dict[int, float], *, beside_s: float = 0.0, nearly: float = NEARLY
) -> tuple[int, int, float]:
    """The largest batch nearly as good as the best, a gentle one, seconds an image.

    The answers of a large batch are written in one go; a small one is over sooner.
    `beside_s` is what every run costs in addition.
    """
    whole = {n: cost_s + beside_s / n for n, cost_s in curve.items()}
    least = min(whole.values())
    largest = max(n for n, cost_s in whole.items() if cost_s <= least * (1 + nearly))
    gentle = min(n for n, cost_s in whole.items() if cost_s <= least * (1 + GENTLY))
    return largest, gentle, curve[largest]


def measured(
    session: Runs,
    shape: tuple[int, int, int],
    batches: Sequence[int],
    *,
    lanes: int = 1,
    measure_s: float = MEASURE_S,
) -> dict[int, float]:
    """Batch size → seconds of lane time an image while `lanes` run side by side."""
    pixels: dict[int, Batch] = {n: np.zeros((n, *shape), np.uint8) for n in batches}
    for batch in pixels.values():
        session.run(batch)  # the first of each size prepares what the others use
    turns: list[dict[int, float]] = []
    ends = time.perf_counter() + ENOUGH_S
    while not turns or (len(turns) < TURNS and time.perf_counter() < ends):
        turns.append(
            {n: lane_s(session, batch, lanes, measure_s) for n, batch in pixels.items()}
        )
    return {n: min(turn[n] for turn in turns) / n for n in batches}


def lane_s(session: Runs, batch: Batch, lanes: int, measure_s: float) -> float:
    """Seconds of lane time a run, while that lane was at work.

    The mean of all runs: the fastest one ran while other lanes did not.
    """
    began = time.perf_counter()

    def run() -> tuple[int, float]:
        first, runs = time.perf_counter(), 0
        while not runs or time.perf_counter() - began < measure_s:
            session.run(batch)
            runs += 1
        return runs, time.perf_counter() - first

    with ThreadPoolExecutor(lanes) as pool:
        ended = [lane.result() for lane in [pool.submit(run) for _ in range(lanes)]]
    return sum(busy_s for _, busy_s in ended) / sum(runs for runs, _ in ended)
