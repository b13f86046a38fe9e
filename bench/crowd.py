"""one load → **several client processes**, where one cannot send enough.

One process sends some 10,000 small requests a second, or a few gigabits; a GPU host
answers more. The processes share one zero of time (the monotonic clock is the
machine's), so their shots merge into the shots of one load.
"""

import asyncio
import contextlib
import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.pool import Pool
from threading import Barrier

from bench.bodies import Body
from bench.client import Target
from bench.latency import Shot
from bench.rounds import rotated
from bench.traffic import Load, offer, run, saturate

START_S = 1.0  # for the processes to connect before the first arrival
READY_S = 60.0  # for them to import, on a machine that others use


def share(load: Load, processes: int) -> list[Load]:
    """Deal the arrivals out in turn; each process begins at another body."""
    return [
        replace(
            load,
            arrivals_s=load.arrivals_s[number::processes],
            bodies=rotated(load.bodies, number),
            connections=max(load.connections // processes, 1),
        )
        for number in range(processes)
    ]


def offer_together(load: Load, target: Target, *, processes: int) -> list[Shot]:
    """Send an open-loop load from several processes; shots in order of arrival."""
    with _pool(processes) as pool:
        origin_s = time.monotonic() + START_S
        parts = [(part, target, origin_s) for part in share(load, processes)]
        shots = [shot for found in pool.starmap(_offer, parts, 1) for shot in found]
    return sorted(shots, key=lambda shot: shot.intended_s)


def saturate_together(
    bodies: Sequence[Body],
    target: Target,
    *,
    connections: int,
    seconds: float,
    processes: int,
) -> list[Shot]:
    """Keep connections busy from several processes; each counts from its own start."""
    each = max(connections // processes, 1)
    parts = [
        (rotated(bodies, number), target, each, seconds) for number in range(processes)
    ]
    with _pool(processes) as pool:
        return [shot for found in pool.starmap(_saturate, parts, 1) for shot in found]


@contextlib.contextmanager
def _pool(processes: int) -> Iterator[Pool]:
    """Processes that are ready, and terminated with the block, also in mid-load."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes + 1)
    with context.Pool(processes, initializer=_prepare, initargs=(ready,)) as pool:
        ready.wait(READY_S)
        yield pool


def _prepare(ready: Barrier) -> None:
    """Ctrl-C reaches all that a terminal started; only the one that waits answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ready.wait(READY_S)


def _offer(load: Load, target: Target, origin_s: float) -> list[Shot]:
    async def on_time() -> list[Shot]:
        # The loop's clock has its own zero under uvloop.
        shift_s = asyncio.get_running_loop().time() - time.monotonic()
        return await offer(load, target, origin_s=origin_s + shift_s)

    return run(on_time())


def _saturate(
    bodies: Sequence[Body], target: Target, connections: int, seconds: float
) -> list[Shot]:
    return run(saturate(bodies, target, connections=connections, seconds=seconds))
