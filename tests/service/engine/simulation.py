"""A backlog, lanes and arrivals on a virtual clock: an hour of load in a second.

No threads and no sleeping: events are kept in a heap, and time jumps from one to the
next. The policy under test is the real one.
"""

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    ahead_s: float = 0.0  # that decoding ahead takes, before it comes to the backlog


def poisson(
    rate: float, seconds: float, *, seed: int = 0, **fields: Any
) -> Iterator[Arrival]:
    """Independent arrivals at `rate` requests a second; `fields` are those of each."""
    generator, now = random.Random(seed), 0.0  # noqa: S311  (a load, not a secret)
    while (now := now + generator.expovariate(rate)) < seconds:
        yield Arrival(now, **fields)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one image really takes of a lane, in seconds."""

    run_s: float  # in a crowd
    lone_s: float | None = None  # where it has the machine for itself; None: as much
    decode_s: float = 0.0  # beside either


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
    costs: Mapping[ModelKey, float | Cost],
    *,
    lanes: int,
    slowness: Callable[[float], float] = lambda _: 1.0,
) -> Report:
    """Feed arrivals to a backlog served by `lanes` lanes of these costs.

    A number is what an image takes to run, in a crowd or alone.
    `slowness` makes what begins at an instant so many times dearer.
    """
    report, order = Report(), itertools.count()
    events: list[tuple[float, int, object]] = []
    for arrival in arrivals:
        offered = arrival.at + arrival.ahead_s
        heapq.heappush(events, (offered, next(order), arrival))
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
            spent = _spend(backlog, cut, costs[cut.batch[0].model], slowness(now))
            heapq.heappush(events, (now + spent.lane_s, next(order), (cut, spent)))
    return report


@dataclass(frozen=True, slots=True)
class Spent:
    """What a batch takes of its lane, in seconds."""

    decode_s: float
    run_s: float
    lone: bool

    @property
    def lane_s(self) -> float:
        """All of it."""
        return self.decode_s + self.run_s


def _spend(backlog: Backlog, cut: Cut, cost: float | Cost, slowness: float) -> Spent:
    """Choose how a batch is run, as a lane does."""
    if not isinstance(cost, Cost):
        cost = Cost(cost)
    lone = len(cut.batch) == 1 and backlog.calm
    alone_s = cost.run_s if cost.lone_s is None else cost.lone_s
    images = slowness * len(cut.batch)
    return Spent(
        images * cost.decode_s, images * (alone_s if lone else cost.run_s), lone
    )


def _offer(backlog: Backlog, arrival: Arrival, now: float, report: Report) -> None:
    arrived, deadline = arrival.at, None
    if arrival.timeout_s is not None:
        deadline = arrived + arrival.timeout_s
    request = None if arrival.images == 1 else object()
    tickets = [
        Ticket(arrival.model, b"", arrived, deadline, request)
        for _ in range(arrival.images)
    ]
    try:
        backlog.offer(tickets, now)
    except OverloadedError as error:
        report.refused.append(error.retry_after_s)


def _finish(
    backlog: Backlog, cut: Cut, spent: Spent, now: float, report: Report
) -> None:
    model = cut.batch[0].model
    images = len(cut.batch)
    run_s = None if spent.lone else spent.run_s / images
    backlog.finish(cut, decode_s=spent.decode_s / images, run_s=run_s)
    report.lane_s[model] += spent.lane_s
    for ticket in cut.batch:
        report.waits["single" if ticket.request is None else "batch"].append(
            now - ticket.arrived
        )
        report.answered[model] += 1
        report.late += ticket.late(now)
