"""one request at a time → **overhead**: what HTTP adds to decode and a run of one.

The in-process figure (decode + preprocess + one run with every core on it) and the
request over a keep-alive connection are measured in alternating rounds, so that both
see the same machine. The client is wrk with one connection: it sends the next request
when the last is answered, and costs a few microseconds itself.

    python -m bench.lone --workload photos
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from bench.bodies import raw
from bench.circumstances import write_record
from bench.client import Target
from bench.ending import command
from bench.limit import repeat
from bench.model import Model
from bench.options import (
    add_models,
    add_record,
    add_workload,
    command_line,
    count,
    positive,
)
from bench.service import serving
from bench.workloads import Workload, chosen_workload
from bench.wrk import WrkError, saturate
from classifier.bundle import resolve
from classifier.hardware import available_cores

ALLOWED_MS = 1.0  # of the goal: 1.1 x (decode + run + 1 ms)
ALLOWED_FACTOR = 1.1


def goal_ms(bare_ms: float) -> float:
    """What a lone request may take where decode and a run of one take `bare_ms`."""
    return ALLOWED_FACTOR * (bare_ms + ALLOWED_MS)


def in_process_ms(model: Model, images: Sequence[bytes], seconds: float) -> float:
    """Milliseconds an image of decode, preprocess and a run of one."""

    def all_once() -> None:
        for data in images:
            model.run(model.pixels(data)[None])

    return repeat(all_once, seconds) / len(images)


def measure(
    target: Target, workload: Workload, model: Model, options: argparse.Namespace
) -> dict[str, Any]:
    """Alternate both measurements; medians of all rounds."""
    images = workload.images[: options.distinct]
    bodies = [raw(image) for image in images]
    inside, over_http = [], []
    saturate(bodies, target, connections=1, seconds=1)  # warm
    for _ in range(options.rounds):
        inside.append(in_process_ms(model, images, options.seconds))
        closed = saturate(bodies, target, connections=1, seconds=options.seconds)
        if closed.failed:
            raise WrkError(f"{closed.failed} of the lone requests failed")
        over_http.append(1e3 / closed.requests_per_s)
    bare_ms, lone_ms = statistics.median(inside), statistics.median(over_http)
    most_ms = goal_ms(bare_ms)
    print(f"in process {bare_ms:.2f}, over HTTP {lone_ms:.2f}, goal {most_ms:.2f} ms")
    return {
        **workload.described(),
        "precision": model.precision,
        "in_process_ms": bare_ms,
        "lone_ms": lone_ms,
        "goal_ms": most_ms,
        "rounds": {"in_process_ms": inside, "lone_ms": over_http},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = command_line("bench.lone", __doc__)
    add_models(parser)
    add_workload(parser)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--distinct", type=count, default=20, help="images sent")
    parser.add_argument("--seconds", type=positive, default=2.0, help="each, a round")
    add_record(parser)
    options = parser.parse_args(arguments)
    workload = chosen_workload(options)
    name = workload.bundle.name
    bundle = resolve(workload.bundle)
    model = Model.load(bundle, precision=options.precision, threads=available_cores())
    settings = {"LINNAEUS_PRECISION": options.precision}
    probe = raw(workload.images[0])
    with serving(options.models, name, probe=probe, settings=settings) as service:
        table = measure(service.target, workload, model, options)
    if options.json is not None:
        write_record(options.json, table)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
