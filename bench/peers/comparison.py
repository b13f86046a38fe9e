"""contestants → **rounds**: each server alone on the machine, in turn, several times.

Interleaved, because a shared machine drifts over minutes: ratios within a round, taken
minutes apart, compare under the same weather. Each round begins with another server.
The in-process limit takes its turn like everybody else.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from bench import wrk
from bench.bodies import Body
from bench.launch import (
    best_prediction,
    check_answers,
    free_port,
    memory_mb,
    processor_s,
    running,
)
from bench.model import Model
from bench.peers.arrangement import Served
from bench.peers.catalog import Contestant, environment
from bench.pipelines import Pipeline, Trial, measure
from bench.rounds import rotated
from bench.workloads import Workload
from classifier.bundle import resolve

CHECKED = 5  # images whose answers must be the bundle's before anything is measured


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and how long."""

    workload: Workload
    precision: str  # where a contestant does not say its own
    rounds: int
    seconds: float
    warm_seconds: float = 2.0  # under the same load, before what is measured


@dataclass(slots=True)
class Standing:
    """One contestant's rounds."""

    name: str
    setting: str
    precision: str
    arrangement: str
    rounds: list[dict[str, float]] = field(default_factory=list)
    failure: str | None = None

    def median(self, key: str) -> float | None:
        """Over its rounds; None where it has none."""
        values = [found[key] for found in self.rounds]
        return statistics.median(values) if values else None


def compare(
    plan: Plan,
    contestants: Sequence[Contestant],
    limits: dict[str, Pipeline],
    *,
    tell: Callable[[str], None],
) -> Iterator[list[Standing]]:
    """Run every round, and yield how all stand after it; the limits come first.

    A contestant that fails is told of, keeps its failure, and is left out of the
    following rounds: a comparison of an hour is not lost to one server.
    """
    tops = [
        Standing("in-process limit", precision, precision, str(asdict(pipeline)))
        for precision, pipeline in limits.items()
    ]
    standings = [
        Standing(c.name, c.setting, c.precision or plan.precision, str(c.arrangement))
        for c in contestants
    ]
    turns: list[Callable[[], str | None]] = [
        partial(_limit_turn, plan, top, pipeline)
        for top, pipeline in zip(tops, limits.values(), strict=True)
    ] + [
        partial(_turn, plan, contestant, standing)
        for contestant, standing in zip(contestants, standings, strict=True)
    ]
    for number in range(plan.rounds):
        for turn in rotated(turns, number * len(turns) // plan.rounds):
            if news := turn():
                tell(f"round {number + 1}: {news}")
        yield tops + standings


def _limit_turn(plan: Plan, top: Standing, pipeline: Pipeline) -> str:
    rate = measure(_trial(plan, top.setting, pipeline))
    top.rounds.append({"requests_per_s": rate})
    return f"{top.name} {top.setting}: {rate:.1f}/s"


def _trial(plan: Plan, precision: str, pipeline: Pipeline) -> Trial:
    bundle = resolve(plan.workload.bundle)
    return Trial(pipeline, bundle, precision, plan.workload.images, plan.seconds)


def _news(contestant: Contestant, standing: Standing) -> str:
    if standing.failure is not None:
        return f"{contestant.title} FAILED: {standing.failure}"
    last = standing.rounds[-1]
    return (
        f"{contestant.title}: {last['requests_per_s']:.1f}/s, "
        f"p50 {last['p50_ms']:.1f} ms, p99 {last['p99_ms']:.1f} ms, "
        f"{last['failed']:.0f} failed, {last['cores']:.2f} cores, "
        f"{last['memory_mb']:.0f} MB"
    )


def _turn(plan: Plan, contestant: Contestant, standing: Standing) -> str | None:
    """What is told of the turn; nothing where the contestant failed before."""
    if standing.failure is not None:
        return None
    try:
        standing.rounds.append(one_round(plan, contestant))
    except Exception as error:  # a border: whatever one server does ends only its turns
        standing.failure = f"{type(error).__name__}: {error}"[:500]
    return _news(contestant, standing)


def one_round(plan: Plan, contestant: Contestant) -> dict[str, float]:
    """Start a contestant, check its answers, warm it, and measure it.

    Raises:
        LaunchError: it does not start, or answers something else than the bundle.
        WrkError: the client failed.
    """
    workload = plan.workload
    served = Served(
        resolve(workload.bundle),
        contestant.precision or plan.precision,
        free_port(),
        contestant.arrangement,
    )
    bodies = [contestant.body(image) for image in workload.images]
    with running(
        contestant.command(served),
        environment(contestant, served),
        port=served.port,
        probe=bodies[0],
    ) as (target, process):
        check_answers(target, bodies[:CHECKED], expected_answers(served, workload))
        _saturate(plan, target, bodies, plan.warm_seconds)
        began_s, had_s = time.monotonic(), processor_s(process)
        found = _saturate(plan, target, bodies, plan.seconds)
        spent_s = processor_s(process) - had_s
        found["cores"] = spent_s / (time.monotonic() - began_s)
        found["memory_mb"] = memory_mb(process)
    return found


def _saturate(
    plan: Plan, target: Any, bodies: Sequence[Body], seconds: float
) -> dict[str, float]:
    connections = plan.workload.connections
    return asdict(
        wrk.saturate(bodies, target, connections=connections, seconds=seconds)
    )


def expected_answers(served: Served, workload: Workload) -> list[tuple[int, float]]:
    """Index and score that the bundle itself gives the first images."""
    model = Model.load(served.bundle, precision=served.precision, threads=1)
    images = workload.images[:CHECKED]
    return [best_prediction(model.classify(image)) for image in images]
