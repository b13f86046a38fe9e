"""arrival rate → **latencies**: an open-loop load, which does not wait for the server.

A closed loop (N connections, each waiting for its answer) slows down with the server
and so never overloads it. Here arrivals come at their own instants, constant or
Poisson, and latency counts from those instants; see `bench/latency.py`.

    python -m bench.load http://127.0.0.1:8000 --rate 200 --seconds 10 --deadline-ms 500
"""

import argparse
import asyncio
import dataclasses
import math
import random
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.bodies import DIALECTS, Body, batches
from bench.circumstances import write_record
from bench.client import ConnectionBrokenError, Pool, ResponseError, Target
from bench.latency import BROKEN, EXPIRED, Shot, Summary, summarize
from bench.workloads import load_workload

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


async def offer(load: Load, target: Target) -> list[Shot]:
    """Send every request of the load at its instant; returns a shot each, in order."""
    pool = Pool(target, connections=load.connections)
    await pool.warm(min(load.connections, 64))
    requests = [(body.request, body.images) for body in load.bodies]
    loop = asyncio.get_running_loop()
    origin_s = loop.time()
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
    sent_s = clock() - origin_s
    retry_after_s = None
    try:
        async with asyncio.timeout(patience_s):
            response = await pool.send(request)
        status, retry_after_s = response.status, response.retry_after_s
    except TimeoutError:
        status = EXPIRED
    except (ConnectionBrokenError, ResponseError):
        status = BROKEN
    done_s = clock() - origin_s
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


def describe(summary: Summary) -> str:
    """The summary as a few lines for a person."""
    lines = [
        f"offered   {summary.offered_per_s:9.1f} requests/s",
        f"answered  {summary.answered_per_s:9.1f} requests/s"
        f" ({summary.images_per_s:.1f} images/s)",
        f"goodput   {summary.goodput_per_s:9.1f} requests/s, {summary.late} late",
        f"latency   p50 {summary.p50_ms:.1f}  p95 {summary.p95_ms:.1f}"
        f"  p99 {summary.p99_ms:.1f}  worst {summary.worst_ms:.1f} ms",
        f"answers   {summary.statuses}",
        f"client    sent at most {summary.send_lag_p99_ms:.1f} ms late (p99)",
    ]
    if summary.retry_after is not None:
        lines.append(f"refusals  {summary.retry_after}")
    return "\n".join(lines)


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load", description=__doc__, formatter_class=_Raw
    )
    parser.add_argument("url", help="http://127.0.0.1:PORT, loopback only")
    parser.add_argument("--rate", type=float, help="arrivals a second (open loop)")
    parser.add_argument(
        "--arrivals", choices=["poisson", "constant"], default="poisson"
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--connections", type=int, default=256, help="at most")
    parser.add_argument("--closed", action="store_true", help="closed loop instead")
    parser.add_argument("--workload", choices=["photos", "digits"], default="photos")
    parser.add_argument("--dialect", choices=[*DIALECTS, "batch"], default="raw")
    parser.add_argument("--query", default="", help="e.g. model=digits")
    parser.add_argument("--deadline-ms", type=float, default=math.inf)
    parser.add_argument("--json", type=Path, help="write the record there")
    options = parser.parse_args(arguments)
    if options.closed == (options.rate is not None):
        parser.error("give either --rate (open loop) or --closed")
    return options


_Raw = argparse.RawDescriptionHelpFormatter


def build_bodies(options: argparse.Namespace) -> list[Body]:
    """The bodies asked for on the command line."""
    images = load_workload(options.workload).images
    if options.dialect == "batch":
        bodies = batches(images, size=32)
    else:
        bodies = [DIALECTS[options.dialect](image) for image in images]
    if not options.query:
        return bodies
    return [
        dataclasses.replace(body, path=f"{body.path}?{options.query}")
        for body in bodies
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one load and print, or write, what it found."""
    options = read_arguments(arguments)
    target, bodies = Target.parse(options.url), build_bodies(options)
    seconds = min(options.seconds, MAX_SECONDS)
    if options.closed:
        shots = run(
            saturate(bodies, target, connections=options.connections, seconds=seconds)
        )
    else:
        arrivals = draw_arrivals(options, seconds)
        shots = run(offer(Load(arrivals, bodies, options.connections), target))
    summary = summarize(shots, seconds=seconds, deadline_s=options.deadline_ms / 1e3)
    print(describe(summary))
    if options.json is not None:
        write_record(options.json, {"load": dataclasses.asdict(summary)})
    return 0 if any(shot.answered for shot in shots) else 1


def draw_arrivals(options: argparse.Namespace, seconds: float) -> list[float]:
    """The instants asked for on the command line."""
    if options.arrivals == "constant":
        return constant_arrivals(options.rate, seconds)
    rng = random.Random(options.seed)  # noqa: S311  a load, not a secret
    return poisson_arrivals(options.rate, seconds, rng=rng)


if __name__ == "__main__":
    sys.exit(main())
