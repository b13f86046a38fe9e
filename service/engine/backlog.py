"""offered tickets → **the next batch**: the whole policy, without a thread or a clock.

Five promises, each a test on a virtual clock:

- Models share the lanes by time: whoever has used them least goes next.
- Requests of one image go before the items of batch requests, but every fourth place
  is a batch item's, and batch requests take turns: nobody starves.
- An image that cannot be answered before its deadline is refused when it arrives, by
  a prediction that learns from how wrong it was; should one be too late all the same,
  it is dropped when its turn comes, before any work is spent on it. A request that
  finds the line of its model empty is accepted whatever is predicted; otherwise a too
  pessimistic prediction could never be corrected.
- What waits is shared by the lanes that are free, as many as run side by side: no core
  is idle while another runs a batch. With all of them busy, batches grow by themselves.
- A decision costs the same however many wait.

A lane is here any thread that takes from a backlog: one that runs batches, or one of
`ahead`, which has a backlog of its own.

Not thread-safe: callers hold a lock while they change what waits, who is busy, or how
many lanes there are. `waiting`, `cost_s`, `lanes`, `busy` and the length are also read
without it, where a slightly old value will do.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from service.contract import ModelKey
from service.engine.line import SINGLES_PER_BATCH_ITEM, Line, no_room, no_time
from service.engine.ticket import Ticket

# A batch request that arrives later takes every fourth place before those that wait
# already, so a wait may become so many times what was predicted.
SAFETY = (SINGLES_PER_BATCH_ITEM + 1) / SINGLES_PER_BATCH_ITEM


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What a lane takes: a batch to run, and tickets that no work is spent on."""

    batch: list[Ticket]
    expired: list[Ticket]  # they came too late
    withdrawn: list[Ticket]  # their senders have left


class Backlog:
    """The lines of all models of a device. `now` is in seconds of a monotonic clock."""

    def __init__(self, *, capacity: int, lanes: int) -> None:
        self.capacity = capacity
        self.lanes = lanes
        # the batch of each busy lane, and the instant at which the lane should be free
        self._ends: dict[Cut, float] = {}
        self._lines: dict[ModelKey, Line] = {}
        self._used_s = 0.0  # the virtual clock: lane time of the line served last

    def add_model(
        self,
        key: ModelKey,
        *,
        best_batch: int,
        run_s: float,
        decode_s: float = 0.0,
        gentle_batch: int | None = None,
        abreast: int | None = None,
    ) -> None:
        """Open a line; `run_s` and `decode_s` first estimate the lane time an image.

        `abreast`: so many of its runs leave each other their speed, and so many lanes
        share what waits; by default all there are.
        """
        gentle, sharing = gentle_batch or best_batch, abreast or self.lanes
        self._lines[key] = Line(best_batch, gentle, run_s, run_s, decode_s, sharing)

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    @property
    def busy(self) -> int:
        """Lanes at work."""
        return len(self._ends)

    @property
    def calm(self) -> bool:
        """Whether one lane at most is at work, and nothing waits for another."""
        return self.busy <= 1 and not self

    def waiting(self, key: ModelKey) -> int:
        """Images of that model that wait."""
        return len(self._lines[key])

    def cost_s(self, key: ModelKey) -> float:
        """Learned lane time of one image of that model."""
        return self._lines[key].cost_s

    def run_s(self, key: ModelKey) -> float:
        """The part of it that is not for decoding."""
        return self._lines[key].run_s

    def offer(self, tickets: Sequence[Ticket], now: float) -> None:
        """Accept the tickets of one request, all or none.

        Raises:
            OverloadedError: as `check` does.
        """
        wait_s = self.check(tickets, now)
        first = tickets[0]
        line = self._lines[first.model]
        alone = not line
        if alone:
            line.used_s = max(line.used_s, self._used_s)  # idle lines save up no time
        for ticket in tickets:
            ticket.next_in_line = alone  # another backlog may have said otherwise
        last = tickets[-1]
        last.offered, last.promised_s = now, wait_s
        if first.request is None:
            line.singles.extend(tickets)
            line.single_at = now
        else:
            line.requests.append(deque(tickets))
            line.batch_items += len(tickets)

    def check(
        self,
        tickets: Sequence[Ticket],
        now: float,
        *,
        coming: int = 0,
        coming_s: float = 0.0,
    ) -> float:
        """How long the last of these would wait, in seconds, were they offered now.

        `coming` images of their model and kind will be offered before them, the last in
        `coming_s` seconds.

        Raises:
            OverloadedError: no room, or no time before the deadline; it says when to
                come back.
        """
        first = tickets[0]
        line = self._lines[first.model]
        # each kind has its own room, or a flood of one would shut the other out
        of_kind = len(line.singles) if first.request is None else line.batch_items
        of_kind += coming
        if of_kind + len(tickets) > self.capacity:
            raise no_room(
                first.model,
                of_kind,
                len(tickets),
                capacity=self.capacity,
                retry_after_s=max(coming_s, self.predicted_wait_s(first.model, now)),
            )
        wait_s, own_s = self._predicted_s(tickets, now, coming)
        if line or coming:
            self._check_deadline(first, now, wait_s=wait_s, own_s=own_s)
        return wait_s

    def take(self, now: float) -> Cut | None:
        """Cut the next batch for a lane that is free; None when nothing waits."""
        expired: list[Ticket] = []
        withdrawn: list[Ticket] = []
        while line := min(self._occupied(), key=lambda each: each.used_s, default=None):
            batch: list[Ticket] = []
            limit = min(line.limit(now), self._share(line))
            done = now + line.cost_s * min(limit, len(line))
            while line and len(batch) < limit:
                ticket = line.pop()
                if ticket.abandoned:
                    withdrawn.append(ticket)
                    continue
                line.learn_wait(ticket, now)
                if ticket.late(now if ticket.next_in_line else done):
                    expired.append(ticket)
                    continue
                batch.append(ticket)
            if batch:
                self._used_s = line.used_s
                line.used_s += len(batch) * line.cost_s
                cut = Cut(batch, expired, withdrawn)
                self._ends[cut] = now + len(batch) * line.cost_s
                return cut
        return Cut([], expired, withdrawn) if expired or withdrawn else None

    def clear(self) -> list[Ticket]:
        """Take out everything that waits."""
        waiting = []
        for line in self._lines.values():
            waiting += [line.pop() for _ in range(len(line))]
        return waiting

    def finish(
        self,
        cut: Cut,
        *,
        decode_s: float | None = None,
        run_s: float | None = None,
        beyond_s: float = 0.0,
    ) -> None:
        """A lane is free again; learn what decoding and running an image have taken.

        `decode_s` is None if no image was decoded, or the batch was abandoned. `run_s`
        is None if the run was not one of a crowd, of whose cost it says nothing.
        `beyond_s` is what its model has had of the lane beside what its images are
        known to take.
        """
        del self._ends[cut]
        line = self._lines[cut.batch[0].model]
        line.used_s += beyond_s
        if decode_s is not None:
            line.learn_cost(decode_s=decode_s, run_s=run_s)

    def predicted_wait_s(self, key: ModelKey, now: float) -> float:
        """How long until all that waits in this line now is served."""
        return self._wait_s(key, len(self._lines[key]), now)

    def _share(self, line: Line) -> int:
        """Images of a line that are the part of one free lane, with all that waits."""
        free = max(1, min(self.lanes, line.abreast) - self.busy)
        # in images of this line: another's may cost more, or less
        waiting = sum(
            len(other) * (other.cost_s / line.cost_s) for other in self._occupied()
        )
        return ceil(waiting / free)

    def _check_deadline(
        self, first: Ticket, now: float, *, wait_s: float, own_s: float
    ) -> None:
        """Raises OverloadedError if the last image of its request could be too late."""
        needed_s = SAFETY * self._lines[first.model].stretch(now) * wait_s + own_s
        if first.deadline is not None and now + needed_s > first.deadline:
            raise no_time(
                needed_s,
                first.deadline - now,
                retry_after_s=self.predicted_wait_s(first.model, now),
            )

    def _predicted_s(
        self, tickets: Sequence[Ticket], now: float, coming: int
    ) -> tuple[float, float]:
        """Seconds until the last of these is taken, and until it is done after that."""
        key, n = tickets[0].model, len(tickets)
        line = self._lines[key]
        single = tickets[0].request is None
        ahead = line.ahead_of_single() if single else line.ahead_of_batch(n) + n - 1
        ahead += coming
        together = min(line.limit(now), ahead + 1)
        return self._wait_s(key, ahead, now), together * line.cost_s

    def _wait_s(self, key: ModelKey, ahead: int, now: float) -> float:
        """Seconds to wait behind `ahead` images of one line; other lines have a share.

        The shorter of two: all lanes work it off together after their present batches,
        or the lane that is free first does so alone.
        """
        own_s = ahead * self._lines[key].cost_s
        others_s = sum(
            min(own_s, len(line) * line.cost_s)
            for other, line in self._lines.items()
            if other != key
        )
        waiting_s = own_s + others_s
        # an overdue lane counts below 0, and hides at most what the others still need
        ends = self._ends.values()
        begun_s = max(0.0, sum(ends) - len(ends) * now)
        together_s = (waiting_s + begun_s) / self.lanes
        if waiting_s >= together_s:
            return together_s
        full = len(ends) >= self.lanes
        first_s = max(0.0, min(ends) - now) if full else 0.0
        return min(together_s, first_s + waiting_s)

    def _occupied(self) -> Iterator[Line]:
        return (line for line in self._lines.values() if line)
