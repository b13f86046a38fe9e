"""3 x capacity → **goodput**: what an overloaded service still does, open loop.

In each round capacity is measured by a closed loop before and after the overload, and
the mean of both counts, because the speed of a shared machine drifts meanwhile. Between
them are Poisson arrivals at a multiple of the first: the goodput should stay near
capacity, every answer should come within its deadline, and the rest should be refused
at once, with a Retry-After that is true.

One process serves, and the other cores send; for digits, several clients at once.

    python -m bench.overload --factor 3 --rounds 5 --seconds 10
    python -m bench.overload --workload digits --clients 2 --deadline-ms 500
"""

import argparse
import dataclasses
import random
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from bench import wrk
from bench.bodies import raw
from bench.circumstances import write_record
from bench.crowd import offer_together
from bench.ending import command
from bench.latency import Shot, percentile, summarize
from bench.load import describe
from bench.options import (
    add_models,
    add_record,
    add_workload,
    command_line,
    count,
    positive,
)
from bench.rounds import describe as describe_rounds
from bench.rounds import medians
from bench.service import Service, serving
from bench.traffic import Load, poisson_arrivals
from bench.workloads import Workload, chosen_workload


def measure(
    service: Service, workload: Workload, options: argparse.Namespace, *, seed: int
) -> dict[str, Any]:
    """One round, JSON-ready: capacity, the overload, and capacity again."""
    bodies = [raw(image) for image in workload.images]
    closed_loop = partial(
        wrk.saturate,
        bodies,
        service.target,
        connections=workload.connections,
        seconds=options.seconds / 2,
    )
    before = wrk.answered(closed_loop(), "the closed loop").requests_per_s
    rng = random.Random(seed)  # noqa: S311  a load, not a secret
    arrivals = poisson_arrivals(options.factor * before, options.seconds, rng=rng)
    load = Load(arrivals, bodies, connections=options.connections)
    shots = offer_together(load, service.target, processes=options.clients)
    deadline_s = options.deadline_ms / 1e3
    summary = summarize(shots, seconds=options.seconds, deadline_s=deadline_s)
    after = closed_loop().requests_per_s
    capacity = (before + after) / 2
    print(f"capacity  {before:9.1f} requests/s before, {after:.1f} after")
    print(describe(summary))
    return {
        "capacity_per_s": capacity,
        "capacity_before_per_s": before,
        "capacity_after_per_s": after,
        "of_capacity": summary.goodput_per_s / capacity,
        "refusal_p99_ms": refusal_p99_ms(shots),
        "summary": dataclasses.asdict(summary),
    }


def measure_rounds(
    service: Service, workload: Workload, options: argparse.Namespace
) -> dict[str, Any]:
    """Every round, each with arrivals of its own, and their medians."""
    bodies = [raw(image) for image in workload.images]
    wrk.warm(bodies, service.target, connections=workload.connections)
    rounds = [
        measure(service, workload, options, seed=options.seed + number)
        for number in range(options.rounds)
    ]
    ratios = [found["of_capacity"] for found in rounds]
    print(f"goodput, of capacity: {describe_rounds(ratios)}")
    return {
        **workload.described(),
        "factor": options.factor,
        "seconds": options.seconds,
        "deadline_ms": options.deadline_ms,
        "clients": options.clients,
        **medians(rounds, ("capacity_per_s", "of_capacity", "refusal_p99_ms")),
        "rounds": rounds,
    }


def refusal_p99_ms(shots: Sequence[Shot]) -> float:
    """How long a client waits to hear that it is refused."""
    return percentile((s.latency_s * 1e3 for s in shots if s.status == 503), 99)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = command_line("bench.overload", __doc__)
    add_models(parser)
    add_workload(parser)
    parser.add_argument("--factor", type=positive, default=3.0, help="x capacity")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--seconds", type=positive, default=10.0, help="each overload")
    parser.add_argument("--deadline-ms", type=count, default=2000)
    parser.add_argument("--connections", type=count, default=2000, help="at most")
    parser.add_argument("--clients", type=count, default=1, help="processes that send")
    parser.add_argument("--seed", type=int, default=0)
    add_record(parser)
    options = parser.parse_args(arguments)
    workload = chosen_workload(options)
    settings = {
        "LINNAEUS_PROCESSES": "1",
        "LINNAEUS_REQUEST_TIMEOUT_MS": str(options.deadline_ms),
    }
    probe = raw(workload.images[0])
    name = workload.bundle.name
    with serving(options.models, name, probe=probe, settings=settings) as service:
        table = measure_rounds(service, workload, options)
    if options.json is not None:
        write_record(options.json, table)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
