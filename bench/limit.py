"""bundle + machine → **limit**: what can be classified a second without any HTTP.

Every serving figure is a ratio to this one, so it is searched, not assumed: workers
as threads or processes, sessions of one or all cores, batch sizes, decoding beside
the session or ahead of it. Each is tried shortly, the best few longer, the last three
in several interleaved rounds, and the best median is the limit.

    python -m bench.limit --workload photos --precision fp32
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.circumstances import write_record
from bench.ending import command
from bench.model import Model
from bench.options import add_models, add_record, add_workload, command_line, positive
from bench.pipelines import Pipeline, Trial, measure
from bench.workloads import Workload, chosen_workload
from classifier.bundle import resolve
from classifier.hardware import available_cores

BATCHES = (1, 2, 4, 8, 16, 32)
KEPT = 3  # arrangements that are measured in rounds


def candidates(cores: int, batches: Sequence[int] = BATCHES) -> list[Pipeline]:
    """Every arrangement worth a try on that many cores."""
    found = []
    for kind in ("threads", "processes"):
        for batch in batches:
            one = Pipeline(kind, "beside", workers=cores, threads=1, batch=batch)
            found.append(one)
            if cores > 1:
                lone = dataclasses.replace(one, workers=1, threads=cores)
                crowd = dataclasses.replace(one, workers=2 * cores)
                ahead = dataclasses.replace(lone, decode="ahead", workers=cores)
                found += [lone, crowd, ahead]
    return found


def stage_costs(model: Model, images: Sequence[bytes], *, seconds: float) -> float:
    """Milliseconds an image of decode and preprocess alone, one thread."""
    return repeat(lambda: [model.pixels(data) for data in images], seconds) / len(
        images
    )


def run_costs(model: Model, *, seconds: float) -> dict[int, float]:
    """Batch size → milliseconds an image of the session alone."""
    noise = np.random.default_rng(0)
    costs = {}
    for n in BATCHES:
        batch = noise.integers(0, 256, (n, *model.shape), dtype=np.uint8)
        costs[n] = repeat(partial(model.run, batch), seconds) / n
    return costs


def repeat(call: Callable[[], object], seconds: float) -> float:
    """The median milliseconds of a call, repeated for that long and at least thrice."""
    call()
    spent_ms: list[float] = []
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s or len(spent_ms) < 3:
        started_s = time.perf_counter()
        call()
        spent_ms.append((time.perf_counter() - started_s) * 1e3)
    return statistics.median(spent_ms)


def search(
    bundle: Path,
    precision: str,
    images: Sequence[bytes],
    *,
    seconds: float,
    rounds: int = 3,
) -> list[tuple[Pipeline, list[float]]]:
    """Successive halving over the arrangements; best first, images a second each.

    The first sieve runs each for a sixth of `seconds`, the second the best quarter for
    half of it, the last the best three for all of it, `rounds` times in turn.
    """

    def rate(pipeline: Pipeline, for_s: float) -> float:
        return measure(Trial(pipeline, bundle, precision, images, for_s))

    first = [(rate(p, seconds / 6), p) for p in candidates(available_cores())]
    first.sort(key=lambda pair: -pair[0])
    quarter = [p for _, p in first[: max(KEPT, len(first) // 4)]]
    second = sorted(((rate(p, seconds / 2), p) for p in quarter), key=lambda x: -x[0])
    finalists = [p for _, p in second[:KEPT]]
    rates: dict[Pipeline, list[float]] = {p: [] for p in finalists}
    for _ in range(rounds):
        for pipeline in finalists:
            rates[pipeline].append(rate(pipeline, seconds))
    return sorted(rates.items(), key=lambda pair: -statistics.median(pair[1]))


def survey(workload: Workload, precision: str, *, seconds: float) -> dict[str, Any]:
    """Decode alone, inference alone, and the best pipelines, as a JSON-ready table."""
    bundle, cores = resolve(workload.bundle), available_cores()
    one = Model.load(bundle, precision=precision, threads=1)
    per_batch_s = seconds / 2
    runs = {1: run_costs(one, seconds=per_batch_s)}
    if cores > 1:
        every = Model.load(bundle, precision=precision, threads=cores)
        runs[cores] = run_costs(every, seconds=per_batch_s)
    images = workload.images[:16]
    decode_ms = stage_costs(one, images, seconds=seconds)
    best = search(bundle, one.precision, workload.images, seconds=seconds)
    return {
        **workload.described(),
        "precision": one.precision,
        "decode_ms": decode_ms,
        "run_ms_an_image": {
            f"{threads} threads": costs for threads, costs in runs.items()
        },
        "pipelines": [
            {
                **dataclasses.asdict(pipeline),
                "images_per_s": statistics.median(rates),
                "rounds": rates,
            }
            for pipeline, rates in best
        ],
    }


def describe(table: dict[str, Any]) -> str:
    """The survey for a person."""
    lines = [
        f"{table['workload']} → {table['model']}, {table['precision']}",
        f"decode + preprocess: {table['decode_ms']:.3f} ms an image, one thread",
        "session alone, ms an image at batch " + "/".join(map(str, BATCHES)) + ":",
    ]
    for threads, costs in table["run_ms_an_image"].items():
        lines.append(f"  {threads}: " + "/".join(f"{costs[n]:.3f}" for n in BATCHES))
    lines.append("best pipelines, images a second (median of rounds):")
    for row in table["pipelines"]:
        pipeline = f"{row['workers']} {row['kind']}, decode {row['decode']}"
        lines.append(
            f"  {row['images_per_s']:9.1f}  {pipeline}, "
            f"sessions of {row['threads']} threads, batch {row['batch']}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Survey one workload and print, or write, the table."""
    parser = command_line("bench.limit", __doc__)
    add_models(parser)
    add_workload(parser)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=positive, default=4.0, help="a final round")
    add_record(parser)
    options = parser.parse_args(arguments)
    workload = chosen_workload(options)
    table = survey(workload, options.precision, seconds=options.seconds)
    print(describe(table))
    if options.json is not None:
        write_record(options.json, {"limit": table})
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
