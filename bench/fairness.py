"""batches beside singles → **who waits**: batch-of-32 requests must not starve singles.

Four loads on one service, in several rounds: singles alone at saturation (the
throughput to match) and batches of 32 alone; singles at a modest open-loop rate (their
latency undisturbed) and the same singles while batches keep the service saturated. Of
each pair every other round begins with the second. The second pair lasts longer, so
that a p99 is not the longest but one; the rate of its batches is counted over its
duration, and so without the wave that its end cuts off.

    python -m bench.fairness --rounds 5 --seconds 6
"""

import asyncio
import dataclasses
import random
import sys
from collections.abc import Sequence
from typing import Any

from bench import wrk
from bench.bodies import Body, batches, raw
from bench.circumstances import write_record
from bench.client import Target
from bench.ending import command
from bench.latency import Shot, summarize
from bench.options import (
    add_models,
    add_record,
    add_workload,
    command_line,
    count,
    positive,
)
from bench.rounds import describe, medians, rotated
from bench.service import serving
from bench.traffic import Load, offer, poisson_arrivals, run, saturate
from bench.workloads import Workload, chosen_workload

BATCH = 32
SINGLE_CONNECTIONS = 32
BATCH_CONNECTIONS = 4
RATES = (
    "singles_per_s",
    "batches_images_per_s",
    "batches_to_singles",
    "p99_ratio",
    "batches_beside_images_per_s",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Loads:
    """The two kinds of requests and how long the loads last."""

    singles: Sequence[Body]
    batches: Sequence[Body]
    seconds: float  # of a closed loop
    open_seconds: float  # of singles at a modest rate

    @classmethod
    def of(cls, workload: Workload, *, seconds: float, open_seconds: float) -> "Loads":
        """Raw singles, and batches in forms."""
        singles = [raw(image) for image in workload.images]
        many = batches(workload.images, size=BATCH)
        return cls(singles, many, seconds, open_seconds)


async def alone(
    loads: Loads, arrivals: Sequence[float], target: Target
) -> tuple[list[Shot], list[Shot]]:
    """Singles at their instants, and no batches."""
    return await offer(Load(arrivals, loads.singles), target), []


async def mixed(
    loads: Loads, arrivals: Sequence[float], target: Target
) -> tuple[list[Shot], list[Shot]]:
    """Singles at their instants while some connections always have a batch inside."""
    background = saturate(
        loads.batches, target, connections=BATCH_CONNECTIONS, seconds=loads.open_seconds
    )
    singles = offer(Load(arrivals, loads.singles), target)
    batch_shots, single_shots = await asyncio.gather(background, singles)
    return single_shots, batch_shots


def measure(
    target: Target, loads: Loads, *, share: float, seed: int, number: int
) -> dict[str, Any]:
    """Round `number`, JSON-ready: the four loads; `share` of capacity is modest."""
    seconds = loads.open_seconds
    closed = saturate_each(target, loads, number)
    # counted alike: the two ways differ by what is on its way at the end
    singles_per_s, batches_per_s = (
        wrk.steady_images_per_s(closed[kind]) for kind in ("singles", "batches")
    )
    rng = random.Random(seed + number)  # noqa: S311  a load, not a secret
    arrivals = poisson_arrivals(share * singles_per_s, seconds, rng=rng)
    kinds = {"alone": alone, "beside_batches": mixed}
    shots = {
        kind: run(load(loads, arrivals, target))
        for kind, load in rotated(kinds.items(), number)
    }
    singles = {
        kind: summarize(each, seconds=seconds) for kind, (each, _) in shots.items()
    }
    _, batch_shots = shots["beside_batches"]
    beside = summarize(batch_shots, seconds=seconds)
    return {
        "singles_per_s": singles_per_s,
        "batches_images_per_s": batches_per_s,
        "batches_to_singles": batches_per_s / singles_per_s,
        **{kind: dataclasses.asdict(summary) for kind, summary in singles.items()},
        "p99_ratio": singles["beside_batches"].p99_ms / singles["alone"].p99_ms,
        "batches_beside_images_per_s": beside.images_per_s,
        "failed": count_failed(list(closed.values()), batch_shots),
    }


def saturate_each(target: Target, loads: Loads, number: int) -> dict[str, wrk.Closed]:
    """The closed loops of round `number`: singles and batches, each by themselves."""
    kinds = {
        "singles": (loads.singles, SINGLE_CONNECTIONS),
        "batches": (loads.batches, BATCH_CONNECTIONS),
    }
    return {
        kind: wrk.answered(
            wrk.saturate(
                bodies, target, connections=connections, seconds=loads.seconds
            ),
            kind,
        )
        for kind, (bodies, connections) in rotated(kinds.items(), number)
    }


def measure_rounds(
    target: Target, loads: Loads, *, rounds: int, share: float, seed: int
) -> dict[str, Any]:
    """Every round, and the medians of what they found."""
    wrk.warm(loads.singles, target, connections=SINGLE_CONNECTIONS)
    found = []
    for number in range(rounds):
        found.append(measure(target, loads, share=share, seed=seed, number=number))
        tell(f"round {number + 1}", found[-1:])
    tell("all rounds", found)
    return {
        "share": share,
        "seconds": loads.seconds,
        "open_seconds": loads.open_seconds,
        **medians(found, RATES),
        "failed": sum(turn["failed"] for turn in found),
        "rounds": found,
    }


def tell(title: str, rounds: Sequence[dict[str, Any]]) -> None:
    """The medians and the spreads, for a person."""
    values = {key: [turn[key] for turn in rounds] for key in RATES}
    print(f"--- {title}", flush=True)
    for key, each in values.items():
        print(f"{key:28} {describe(each)}", flush=True)


def count_failed(closed: Sequence[wrk.Closed], shots: Sequence[Shot]) -> int:
    """Requests that were sent to saturate the service and were not answered."""
    unanswered = sum(not shot.answered for shot in shots)
    return unanswered + sum(loop.failed for loop in closed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = command_line("bench.fairness", __doc__)
    add_models(parser)
    add_workload(parser)
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument(
        "--seconds", type=positive, default=6.0, help="of each load at saturation"
    )
    parser.add_argument(
        "--open-seconds",
        type=positive,
        default=20.0,
        help="of singles at a modest rate",
    )
    parser.add_argument("--share", type=positive, default=0.25, help="of capacity")
    parser.add_argument("--seed", type=int, default=0)
    add_record(parser)
    options = parser.parse_args(arguments)
    workload = chosen_workload(options)
    loads = Loads.of(
        workload, seconds=options.seconds, open_seconds=options.open_seconds
    )
    name = workload.bundle.name
    with serving(options.models, name, probe=loads.singles[0]) as service:
        table = measure_rounds(
            service.target,
            loads,
            rounds=options.rounds,
            share=options.share,
            seed=options.seed,
        )
    if options.json is not None:
        write_record(options.json, {**workload.described(), **table})
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
