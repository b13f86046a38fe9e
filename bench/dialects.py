"""request bodies → **throughput**: what a form, base64 or a batch costs.

Closed loops on one running service, the dialects in turn, several rounds.

    python -m bench.dialects --workload digits
"""

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from bench import wrk
from bench.bodies import DIALECTS, Body, batches, raw
from bench.circumstances import write_record
from bench.client import Target
from bench.ending import command
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

BATCH = 32
BATCH_CONNECTIONS = 4  # each has 32 images inside


def bodies_of(workload: Workload) -> dict[str, tuple[list[Body], int]]:
    """Dialect → its bodies and how many connections send them."""
    listed = {
        name: ([dialect(image) for image in workload.images], workload.connections)
        for name, dialect in DIALECTS.items()
    }
    many = batches(workload.images, size=BATCH)
    return {**listed, f"batch of {BATCH}": (many, BATCH_CONNECTIONS)}


def measure(
    target: Target, workload: Workload, *, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """One row a dialect: medians of its rounds, after one that is not counted.

    The first seconds of a service are slower than any later ones.
    """
    dialects = bodies_of(workload)
    warm_up, connections = dialects["raw"]
    wrk.saturate(warm_up, target, connections=connections, seconds=seconds)
    found: dict[str, list[wrk.Closed]] = {name: [] for name in dialects}
    for _ in range(rounds):
        for name, (bodies, connections) in dialects.items():
            found[name].append(
                wrk.saturate(bodies, target, connections=connections, seconds=seconds)
            )
    return [
        {
            "dialect": name,
            "images_per_s": statistics.median(map(rate, turns)),
            "p50_ms": statistics.median(turn.p50_ms for turn in turns),
            "p99_ms": statistics.median(turn.p99_ms for turn in turns),
            "failed": sum(turn.failed for turn in turns),
            "rounds": [dataclasses.asdict(turn) for turn in turns],
        }
        for name, turns in found.items()
    ]


def rate(turn: wrk.Closed) -> float:
    """Images a second; without the ends of the load where that is known."""
    if turn.steady_images_per_s is None:
        return turn.images_per_s
    return turn.steady_images_per_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = command_line("bench.dialects", __doc__)
    add_models(parser)
    add_workload(parser)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--seconds", type=positive, default=6.0)
    add_record(parser)
    options = parser.parse_args(arguments)
    workload = chosen_workload(options)
    name, probe = workload.bundle.name, raw(workload.images[0])
    with serving(options.models, name, probe=probe) as service:
        rows = measure(
            service.target, workload, rounds=options.rounds, seconds=options.seconds
        )
    for row in rows:
        print(
            f"{row['dialect']:12} {row['images_per_s']:9.1f} images/s"
            f"  p50 {row['p50_ms']:.1f}  p99 {row['p99_ms']:.1f} ms"
            f"  {row['failed']} failed"
        )
    if options.json is not None:
        write_record(options.json, {**workload.described(), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
