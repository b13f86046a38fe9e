"""batches beside singles → **who waits**: batch-of-32 requests must not starve singles.

Four loads on one service: singles alone at saturation (the throughput to match),
batches of 32 alone, singles at a modest open-loop rate (their latency undisturbed),
and the same singles while batches keep the service saturated.

    python -m bench.fairness --seconds 10
"""

import asyncio
import dataclasses
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import wrk
from bench.bodies import Body, batches, raw
from bench.circumstances import REPOSITORY, write_record
from bench.client import Target
from bench.latency import Shot, Summary, summarize
from bench.load import describe
from bench.options import add_models, add_workload, command_line
from bench.service import serving
from bench.traffic import Load, offer, poisson_arrivals, run, saturate
from bench.workloads import Workload, load_workload

RESULT = REPOSITORY / "docs/results/fairness.json"
BATCH = 32
BATCH_CONNECTIONS = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Loads:
    """The two kinds of requests and how long each load lasts."""

    singles: Sequence[Body]
    batches: Sequence[Body]
    seconds: float

    @classmethod
    def of(cls, workload: Workload, seconds: float) -> "Loads":
        """Raw singles, and batches in forms."""
        singles = [raw(image) for image in workload.images]
        return cls(singles, batches(workload.images, size=BATCH), seconds)


async def mixed(
    loads: Loads, arrivals: Sequence[float], target: Target
) -> tuple[list[Shot], list[Shot]]:
    """Singles at their instants while some connections always have a batch inside."""
    background = saturate(
        loads.batches, target, connections=BATCH_CONNECTIONS, seconds=loads.seconds
    )
    singles = offer(Load(arrivals, loads.singles), target)
    batch_shots, single_shots = await asyncio.gather(background, singles)
    return single_shots, batch_shots


def measure(target: Target, loads: Loads, *, share: float, seed: int) -> dict[str, Any]:
    """The four loads in turn; `share` of capacity is the modest rate."""
    seconds = loads.seconds
    alone = wrk.saturate(loads.singles, target, connections=32, seconds=seconds)
    batched = wrk.saturate(
        loads.batches, target, connections=BATCH_CONNECTIONS, seconds=seconds
    )
    print(f"singles {alone.requests_per_s:.1f}/s, batches {batched.images_per_s:.1f}/s")
    rng = random.Random(seed)  # noqa: S311  a load, not a secret
    arrivals = poisson_arrivals(share * alone.requests_per_s, seconds, rng=rng)
    calm = summarize(run(offer(Load(arrivals, loads.singles), target)), seconds=seconds)
    disturbed, batch_shots = run(mixed(loads, arrivals, target))
    beside = summarize(disturbed, seconds=seconds)
    batch_rate = summarize(batch_shots, seconds=seconds).images_per_s
    _tell("alone", calm)
    _tell("beside batches", beside)
    return {
        "singles_per_s": alone.requests_per_s,
        "batches_images_per_s": batched.images_per_s,
        "batches_to_singles": batched.images_per_s / alone.requests_per_s,
        "share": share,
        "alone": dataclasses.asdict(calm),
        "beside_batches": dataclasses.asdict(beside),
        "p99_ratio": beside.p99_ms / calm.p99_ms,
        "batches_beside_images_per_s": batch_rate,
        "failed": count_failed([alone, batched], batch_shots),
        "seconds": seconds,
    }


def count_failed(closed: Sequence[wrk.Closed], shots: Sequence[Shot]) -> int:
    """Requests that were sent to saturate the service and were not answered."""
    unanswered = sum(not shot.answered for shot in shots)
    return unanswered + sum(loop.failed for loop in closed)


def _tell(title: str, summary: Summary) -> None:
    print(f"--- singles {title}\n{describe(summary)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = command_line("bench.fairness", __doc__)
    add_models(parser)
    add_workload(parser)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--share", type=float, default=0.25, help="of capacity")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    workload = load_workload(options.workload)
    loads = Loads.of(workload, options.seconds)
    name = workload.bundle.name
    with serving(options.models, name, probe=loads.singles[0]) as service:
        table = measure(service.target, loads, share=options.share, seed=options.seed)
    write_record(options.json, {"workload": workload.name, **table})
    return 0


if __name__ == "__main__":
    sys.exit(main())
