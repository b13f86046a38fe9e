"""A backlog, lanes and arrivals on a virtual clock: an hour of load in a second.

No threads and no sleeping: events are kept in a heap, and time jumps from one to the
next. The policy under test is the real one.
"""

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from service.contract import ModelKey
from service.engine.backlog import Backlog, Cut
from service.engine.ticket import Ticket
from service.errors import OverloadedError

MODEL: ModelKey = ("model", 1)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of `images` images (more than one is a batch request)."""

    at: float
    images: int = 1
    model: ModelKey = MODEL
    timeout_s: float | None = None


def poisson(
    rate: float, seconds: float, *, seed: int = 0, **fields: Any
) -> Iterator[Arrival]:
    """Independent arrivals at `rate` requests a second; `fields` are those of each."""
    generator, now = random.Random(seed), 0.0  # noqa: S311  (a load, not a secret)
    while (now := now + generator.expovariate(rate)) < seconds:
        yield Arrival(now, **fields)


@dataclass(slots=True)
class Report:
    """What became of every image."""

    # seconds until an answer, by kind of request: "single" or "batch"
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answered: dict[ModelKey, int] = field(default_factory=lambda: defaultdict(int))
    late: int = 0  # answered after its deadline
    expired: int = 0  # dropped when its turn came
    refused: list[float] = field(default_factory=list)  # Retry-After of each refusal
    lane_s: dict[ModelKey, float] = field(default_factory=lambda: defaultdict(float))
    ended: float = 0.0


def simulate(
    backlog: Backlog,
    arrivals: Iterable[Arrival],
    costs_s: dict[ModelKey, float],
    *,
    lanes: int,
    slowness: Callable[[float], float] = lambda _: 1.0,
) -> Report:
    """Feed arrivals to a backlog served by `lanes` lanes of these costs.

    `slowness` makes what begins at an instant so many times dearer.
    """
    report, order = Report(), itertools.count()
    events: list[tuple[float, int, object]] = []
    for arrival in arrivals:
        heapq.heappush(events, (arrival.at, next(order), arrival))
    free = lanes
    while events:
        now, _, event = heapq.heappop(events)
        report.ended = now
        if isinstance(event, Arrival):
            _offer(backlog, event, now, report)
        elif isinstance(event, tuple):
            free += 1
            _finish(backlog, *event, now, report)
        while free and (cut := backlog.take(now)) is not None:
            report.expired += len(cut.expired)
            if not cut.batch:
                continue
            free -= 1
            cost_s = costs_s[cut.batch[0].model] * slowness(now)
            spent = len(cut.batch) * cost_s
            heapq.heappush(events, (now + spent, next(order), (cut, spent)))
    return report


def _offer(backlog: Backlog, arrival: Arrival, now: float, report: Report) -> None:
    deadline = None if arrival.timeout_s is None else now + arrival.timeout_s
    request = None if arrival.images == 1 else object()
    tickets = [
        Ticket(arrival.model, b"", now, deadline, request)
        for _ in range(arrival.images)
    ]
    try:
        backlog.offer(tickets, now)
    except OverloadedError as error:
        report.refused.append(error.retry_after_s)


def _finish(
    backlog: Backlog, cut: Cut, spent: float, now: float, report: Report
) -> None:
    model = cut.batch[0].model
    backlog.finish(cut, spent)
    report.lane_s[model] += spent
    for ticket in cut.batch:
        report.waits["single" if ticket.request is None else "batch"].append(
            now - ticket.arrived
        )
        report.answered[model] += 1
        report.late += ticket.late(now)
