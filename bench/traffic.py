"""arrivals → **shots**: requests sent at their own instants, or one after another.

Open loop (`offer`): the next request does not wait for the last answer. Closed loop
(`saturate`): N connections, each waiting for its answer. Both have a bound.
"""

import asyncio
import math
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.bodies import Body
from bench.client import ConnectionBrokenError, Pool, ResponseError, Target
from bench.latency import BROKEN, EXPIRED, Shot

Answer = TypeVar("Answer")

MAX_REQUESTS = 1_000_000
MAX_SECONDS = 600.0
BROKEN_PAUSE_S = 0.05  # a server that is away is not asked in a tight loop


@dataclass(frozen=True, slots=True)
class Load:
    """Requests at instants: `arrivals_s` counts from the start, `bodies` go round."""

    arrivals_s: Sequence[float]
    bodies: Sequence[Body]
    connections: int = 256
    patience_s: float = 30.0  # a client gives up after that

    def __post_init__(self) -> None:
        if not self.bodies:
            raise ValueError("a load needs at least one body")
        if len(self.arrivals_s) > MAX_REQUESTS:
            raise ValueError(f"at most {MAX_REQUESTS} requests make one load")
        if self.arrivals_s and max(self.arrivals_s) > MAX_SECONDS:
            raise ValueError(f"a load lasts at most {MAX_SECONDS:.0f} s")


def constant_arrivals(rate_per_s: float, seconds: float) -> list[float]:
    """Evenly spaced instants, the first at 0."""
    return [n / rate_per_s for n in range(math.floor(rate_per_s * seconds))]


def poisson_arrivals(
    rate_per_s: float, seconds: float, *, rng: random.Random
) -> list[float]:
    """Instants of a Poisson process: exponential gaps, as of many separate clients."""
    instants: list[float] = []
    now_s = rng.expovariate(rate_per_s)
    while now_s < seconds:
        instants.append(now_s)
        now_s += rng.expovariate(rate_per_s)
    return instants


async def offer(
    load: Load, target: Target, *, origin_s: float | None = None
) -> list[Shot]:
    """Send every request of the load at its instant; returns a shot each, in order.

    `origin_s` on the loop's clock is the load's zero; by default now, once connected.
    """
    pool = Pool(target, connections=load.connections)
    await pool.warm(min(load.connections, 64))
    requests = [(body.request, body.images) for body in load.bodies]
    loop = asyncio.get_running_loop()
    origin_s = loop.time() if origin_s is None else origin_s
    tasks = []
    for number, arrival_s in enumerate(load.arrivals_s):
        wait_s = origin_s + arrival_s - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        request, images = requests[number % len(requests)]
        shot = _fire(pool, request, images, arrival_s, origin_s, load.patience_s)
        tasks.append(asyncio.create_task(shot))
        if number % 32 == 31:
            await asyncio.sleep(0)  # behind schedule, answers must still be read
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await pool.close()


async def _fire(
    pool: Pool,
    request: bytes,
    images: int,
    arrival_s: float,
    origin_s: float,
    patience_s: float,
) -> Shot:
    clock = asyncio.get_running_loop().time
    sent_s: float | None = None
    retry_after_s: float | None = None
    try:
        async with asyncio.timeout(patience_s):
            async with pool.connection() as connection:
                sent_s = clock() - origin_s  # until one is free, the client delays it
                response = await connection.send(request)
        status, retry_after_s = response.status, response.retry_after_s
    except TimeoutError:
        status = EXPIRED
    except (ConnectionBrokenError, ResponseError):
        status = BROKEN
    done_s = clock() - origin_s
    if sent_s is None:  # it never was
        sent_s = done_s
    return Shot(arrival_s, sent_s, done_s, status, retry_after_s, images)


async def saturate(
    bodies: Sequence[Body], target: Target, *, connections: int, seconds: float
) -> list[Shot]:
    """Closed loop: every connection sends its next request when the last is answered.

    Where wrk is installed, `bench.wrk` measures the same with less of the client in it.
    """
    pool = Pool(target, connections=connections)
    requests = [(body.request, body.images) for body in bodies]
    loop = asyncio.get_running_loop()
    origin_s = loop.time()
    shots: list[Shot] = []

    async def one_connection(first: int) -> None:
        number = first
        while (now_s := loop.time() - origin_s) < seconds:
            request, images = requests[number % len(requests)]
            shot = await _fire(pool, request, images, now_s, origin_s, 30.0)
            shots.append(shot)
            number += connections
            if shot.status == BROKEN:
                await asyncio.sleep(BROKEN_PAUSE_S)

    await asyncio.gather(*(one_connection(first) for first in range(connections)))
    await pool.close()
    return shots


def run(main: Coroutine[Any, Any, Answer]) -> Answer:
    """Run on uvloop where it is installed: twice the rate of asyncio's own loop."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415  a bare GPU host lacks it
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
