"""arrival rate → **latencies**: an open-loop load, which does not wait for the server.

A closed loop (N connections, each waiting for its answer) slows down with the server
and so never overloads it. Here arrivals come at their own instants, constant or
Poisson, and latency counts from those instants; see `bench/latency.py`.

    python -m bench.load http://127.0.0.1:8000 --rate 200 --seconds 10 --deadline-ms 500
"""

import argparse
import dataclasses
import math
import random
import sys
from collections.abc import Sequence

from bench.bodies import DIALECTS, Body, batches
from bench.circumstances import write_record
from bench.client import Target
from bench.crowd import offer_together, saturate_together
from bench.ending import command
from bench.latency import Shot, Summary, summarize
from bench.options import add_record, add_workload, command_line, count, positive
from bench.traffic import (
    MAX_SECONDS,
    Load,
    constant_arrivals,
    offer,
    poisson_arrivals,
    run,
    saturate,
)
from bench.workloads import load_workload


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
    parser = command_line("bench.load", __doc__)
    parser.add_argument("url", help="http://127.0.0.1:PORT, loopback only")
    parser.add_argument("--rate", type=positive, help="arrivals a second (open loop)")
    parser.add_argument(
        "--arrivals", choices=["poisson", "constant"], default="poisson"
    )
    parser.add_argument("--seconds", type=positive, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--connections", type=count, default=256, help="at most")
    parser.add_argument("--processes", type=count, default=1, help="of the client")
    parser.add_argument("--closed", action="store_true", help="closed loop instead")
    add_workload(parser)
    parser.add_argument("--dialect", choices=[*DIALECTS, "batch"], default="raw")
    parser.add_argument("--query", default="", help="e.g. model=digits")
    parser.add_argument("--deadline-ms", type=positive, default=math.inf)
    add_record(parser)
    options = parser.parse_args(arguments)
    if options.closed == (options.rate is not None):
        parser.error("give either --rate (open loop) or --closed")
    return options


def build_bodies(options: argparse.Namespace) -> list[Body]:
    """The bodies asked for on the command line."""
    images = load_workload(options.workload, images=options.images).images
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
    seconds = min(options.seconds, MAX_SECONDS)
    shots = fire(options, seconds)
    summary = summarize(shots, seconds=seconds, deadline_s=options.deadline_ms / 1e3)
    print(describe(summary))
    if options.json is not None:
        write_record(options.json, {"load": dataclasses.asdict(summary)})
    return 0 if any(shot.answered for shot in shots) else 1


def fire(options: argparse.Namespace, seconds: float) -> list[Shot]:
    """The load asked for on the command line."""
    target, bodies = Target.parse(options.url), build_bodies(options)
    connections, processes = options.connections, options.processes
    if options.closed:
        if processes == 1:
            client = saturate(bodies, target, connections=connections, seconds=seconds)
            return run(client)
        return saturate_together(
            bodies,
            target,
            connections=connections,
            seconds=seconds,
            processes=processes,
        )
    load = Load(draw_arrivals(options, seconds), bodies, connections)
    if processes == 1:
        return run(offer(load, target))
    return offer_together(load, target, processes=processes)


def draw_arrivals(options: argparse.Namespace, seconds: float) -> list[float]:
    """The instants asked for on the command line."""
    if options.arrivals == "constant":
        return constant_arrivals(options.rate, seconds)
    rng = random.Random(options.seed)  # noqa: S311  a load, not a secret
    return poisson_arrivals(options.rate, seconds, rng=rng)


if __name__ == "__main__":
    sys.exit(command(main))
