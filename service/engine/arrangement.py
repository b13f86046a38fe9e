"""graph + machine → **arrangement**: lanes x threads x batch, as measured here.

On a CPU a model has two sessions of one graph: the narrow one runs in the thread that
calls it, so that lanes run side by side; the wide one puts all cores on one run. Which
of them serves a crowd, and which a lone image, is measured, never assumed. On a GPU
there is a session for each padded batch size.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import mean
from typing import Protocol

import numpy as np

from classifier.hardware import available_cores
from classifier.session import Batch, Logits, Session
from service.engine.buckets import SIZES, Buckets
from service.settings import Settings

CPU_BATCHES = (1, 2, 4, 8)  # beyond, the pixels of a batch fall out of the cache
WIDE_BATCH = 4  # beside a batch of one, which is measured for the lone image anyway
# Batches are as good as the best when an image costs no more than this share more.
NEARLY = 0.03
# On a GPU: cutting a batch and telling its senders cost the interpreter as much as the
# device needs for some images, and the curve knows only the device.
CUDA_NEARLY = 0.10
# Fewer lanes than cores must gain more than what a measurement can be wrong by.
FEWER_LANES_GAIN = 0.15
MEASURE_S = 0.03  # for each point of a curve
CUDA_MEASURE_S = 0.15  # the same on a GPU, where a run of a large batch takes longer
# Two batches in flight, one being copied there and one running, and a third being cut.
CUDA_LANES = 3


class Runs(Protocol):
    """What a lane needs of a session."""

    def run(self, batch: Batch) -> Logits:
        """uint8 [N, H, W, C] → float32 [N, K]."""


@dataclass(frozen=True, slots=True)
class Way:
    """A session, and what its runs cost."""

    session: Runs
    threads: int
    batch: int  # most images in one run
    gentle_batch: int  # the smallest that is nearly as good
    cost_s: float  # seconds an image


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How one model is served best on this machine."""

    lanes: int
    crowd: Way  # of each lane while all are at work
    lone: Way  # of an image that has the machine for itself


def arrange_on_cpu(
    graph: bytes, narrow: Session, settings: Settings, *, decode_s: float
) -> Arrangement:
    """Measure a one-thread run in each lane against all cores on one run.

    A lane decodes as well, which takes `decode_s` of one core whatever the session.
    """
    cores = available_cores()
    lanes = cores if settings.lanes == "auto" else settings.lanes
    crowd = fastest(narrow, CPU_BATCHES, settings, lanes=lanes)
    lone = Way(narrow, 1, 1, 1, seconds(narrow, narrow.shape, 1))
    if cores == 1:
        return Arrangement(lanes, crowd, lone)
    wide = Session.load(graph, threads=cores)
    alone = Way(wide, cores, 1, 1, seconds(wide, wide.shape, 1))
    if alone.cost_s < lone.cost_s:
        lone = alone
    if settings.lanes == "auto":
        one_lane = fastest(wide, (WIDE_BATCH,), settings, lanes=1)
        if alone.cost_s < one_lane.cost_s and settings.batch == "auto":
            one_lane = alone
        many_s = (crowd.cost_s + decode_s) / lanes
        if one_lane.cost_s + decode_s < many_s * (1 - FEWER_LANES_GAIN):
            return Arrangement(1, one_lane, lone)
    return Arrangement(lanes, crowd, lone)


def arrange_on_cuda(graph: bytes, proven: Session, settings: Settings) -> Arrangement:
    """A session for each padded size; the lanes share one device."""
    others = {size: Session.load(graph, device="cuda") for size in SIZES[1:]}
    buckets = Buckets({SIZES[0]: proven} | others)
    lanes = CUDA_LANES if settings.lanes == "auto" else settings.lanes
    lone = Way(buckets, 1, 1, 1, seconds(buckets, proven.shape, 1))
    sizes = SIZES if settings.batch == "auto" else (settings.batch,)
    curve = {n: shared_seconds(buckets, proven.shape, n, lanes=lanes) for n in sizes}
    crowd = Way(buckets, 1, *best(curve, nearly=CUDA_NEARLY))
    return Arrangement(lanes, crowd, lone)


def fastest(
    session: Session, batches: Sequence[int], settings: Settings, *, lanes: int
) -> Way:
    """The batch size that suits a session best, unless the settings say one."""
    tried = batches if settings.batch == "auto" else (settings.batch,)
    curve = {n: seconds(session, session.shape, n, lanes=lanes) for n in tried}
    session.give_back()  # a model that nobody asks shall not hold a crowd's memory
    return Way(session, session.threads, *best(curve))


def best(curve: dict[int, float], *, nearly: float = NEARLY) -> tuple[int, int, float]:
    """The largest and the smallest batch that are good, and seconds an image.

    The largest has its answers written in one go; the smallest is over sooner.
    """
    least = min(curve.values())
    good = [n for n, cost_s in curve.items() if cost_s <= least * (1 + nearly)]
    return max(good), min(good), curve[max(good)]


def seconds(
    session: Runs, shape: tuple[int, int, int], n: int, *, lanes: int = 1
) -> float:
    """Seconds an image of batches of n in one lane while `lanes` run side by side."""
    batch: Batch = np.zeros((n, *shape), np.uint8)

    def run() -> object:
        return session.run(batch)

    run()
    if lanes == 1:
        return least_s(run) / n
    with ThreadPoolExecutor(lanes) as pool:
        lane_s = [pool.submit(least_s, run) for _ in range(lanes)]
        return mean(spent.result() for spent in lane_s) / n


def shared_seconds(
    session: Runs, shape: tuple[int, int, int], n: int, *, lanes: int
) -> float:
    """Seconds of lane time an image where the lanes wait for one device.

    Of all runs: the least of one says how long it takes while the others do not run.
    """
    batch: Batch = np.zeros((n, *shape), np.uint8)
    session.run(batch)
    began = time.perf_counter()

    def run() -> int:
        count = 0
        while not count or time.perf_counter() - began < CUDA_MEASURE_S:
            session.run(batch)
            count += n
        return count

    with ThreadPoolExecutor(lanes) as pool:
        images = sum(lane.result() for lane in [pool.submit(run) for _ in range(lanes)])
    return lanes * (time.perf_counter() - began) / images


def least_s(call: Callable[[], object]) -> float:
    """Least seconds of a few calls: the least is what it costs, the rest is noise."""
    least, spent = float("inf"), 0.0
    while spent < MEASURE_S:
        began = time.perf_counter()
        call()
        took = time.perf_counter() - began
        least, spent = min(least, took), spent + took
    return least
