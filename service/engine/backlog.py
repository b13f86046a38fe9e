"""offered tickets → **the next batch**: the whole policy, without a thread or a clock.

Four promises, each a test on a virtual clock:

- Models share the lanes by time: whoever has used them least goes next.
- Requests of one image go before the items of batch requests, but every fourth place
  is a batch item's, and batch requests take turns: nobody starves.
- An image that cannot be answered before its deadline is refused when it arrives, by
  a prediction that learns from how wrong it was; should one be too late all the same,
  it is dropped when its turn comes, before any work is spent on it. Who finds the
  line of its model empty is taken whatever is predicted: nothing else would ever
  correct a prediction that refuses everybody.
- A decision costs the same however many wait.

A lane is whoever takes: a thread that runs batches, or one that decodes ahead of those
from a backlog of its own.

Not safe in threads: whoever changes what waits or who is busy holds the lock that goes
with it. `waiting`, `busy` and the length are also read without it, where a value of a
moment ago will do, and `lanes`, which only a prediction reads, is set without it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from service.contract import ModelKey
from service.engine.ticket import Ticket
from service.errors import OverloadedError

SINGLES_PER_BATCH_ITEM = 3
# Weight of the newest batch in the running mean of the cost of an image.
COST_WEIGHT = 0.1
# One batch is believed to cost at most so many times what was known: a machine that was
# frozen for a minute says nothing of the next image.
MAX_SURPRISE = 4.0
# A batch request that comes later takes every fourth place of those who wait already.
SAFETY = (SINGLES_PER_BATCH_ITEM + 1) / SINGLES_PER_BATCH_ITEM
# Waits that were longer than predicted are believed at once and forgotten slowly: what
# slowed the machine down, or took places, may come again.
LONGER_WEIGHT, FORGOTTEN_S, MAX_STRETCH = 0.5, 30.0, 3.0
# A wait of fewer images than this says more of chance than of the prediction.
TELLING_WAIT = 8


@dataclass(slots=True, eq=False)
class Line:
    """The tickets of one model, and what serving them costs."""

    best_batch: int
    gentle_batch: int  # most images in a run while batch requests wait
    cost_s: float  # seconds of one lane an image, decode and run
    longer: float = 0.0  # by what share waits were longer than predicted, ...
    longer_at: float = 0.0  # ... at that instant
    used_s: float = 0.0  # lane time it has had, on the virtual clock of fair sharing
    singles: deque[Ticket] = field(default_factory=deque)
    requests: deque[deque[Ticket]] = field(default_factory=deque)
    batch_items: int = 0
    singles_in_a_row: int = 0

    def __len__(self) -> int:
        return len(self.singles) + self.batch_items

    def ahead_of_single(self) -> int:
        """Images that go before a request of one image that arrives now."""
        turns = len(self.singles) // SINGLES_PER_BATCH_ITEM + 1
        return len(self.singles) + min(self.batch_items, turns)

    def ahead_of_batch(self, items: int) -> int:
        """Images that go before the last of a batch request that arrives now."""
        turns = SINGLES_PER_BATCH_ITEM * (self.batch_items + items)
        return self.batch_items + min(len(self.singles), turns)

    @property
    def limit(self) -> int:
        """Most images in the next run.

        The items of a batch request do not mind to go in small runs, and a single that
        comes meanwhile has to wait for the whole of one.
        """
        return self.gentle_batch if self.requests else self.best_batch

    def stretch(self, now: float) -> float:
        """What predicted waits must be multiplied by, to be kept."""
        forgotten: float = 0.5 ** ((now - self.longer_at) / FORGOTTEN_S)
        return 1.0 + self.longer * forgotten

    def learn_wait(self, ticket: Ticket, now: float) -> None:
        """Compare how long a ticket has waited with what was predicted."""
        if ticket.promised_s < TELLING_WAIT * self.cost_s:
            return
        found = min(MAX_STRETCH, (now - ticket.arrived) / ticket.promised_s)
        known = self.stretch(now)
        if found > known:
            self.longer = known - 1.0 + LONGER_WEIGHT * (found - known)
            self.longer_at = now

    def pop(self) -> Ticket:
        """The next ticket; the line must not be empty."""
        batch_turn = self.singles_in_a_row >= SINGLES_PER_BATCH_ITEM
        if self.singles and not (batch_turn and self.requests):
            self.singles_in_a_row += 1
            return self.singles.popleft()
        self.singles_in_a_row = 0
        self.batch_items -= 1
        request = self.requests.popleft()
        ticket = request.popleft()
        if request:
            self.requests.append(request)  # the next batch request has its turn
        return ticket


@dataclass(frozen=True, slots=True)
class Cut:
    """What a lane takes: a batch to run, and tickets that no work is spent on."""

    batch: list[Ticket]
    expired: list[Ticket]  # they came too late
    withdrawn: list[Ticket]  # their senders have left


class Backlog:
    """All lines of one device. Instants `now` are seconds of one monotonic clock."""

    def __init__(self, *, capacity: int, lanes: int) -> None:
        self.capacity = capacity
        self.lanes = lanes
        self.busy = 0  # lanes at work
        self._in_hand = 0  # images that they run
        self._lines: dict[ModelKey, Line] = {}
        self._used_s = 0.0  # the virtual clock: lane time of the line served last

    def add_model(
        self,
        key: ModelKey,
        *,
        best_batch: int,
        cost_s: float,
        gentle_batch: int | None = None,
    ) -> None:
        """Open a line for a model whose image costs `cost_s` of a lane."""
        self._lines[key] = Line(best_batch, gentle_batch or best_batch, cost_s)

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def waiting(self, key: ModelKey) -> int:
        """Images of that model that wait."""
        return len(self._lines[key])

    def cost_s(self, key: ModelKey) -> float:
        """Learned lane time of one image of that model."""
        return self._lines[key].cost_s

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
            line.used_s = max(line.used_s, self._used_s)  # idleness saves up no share
        for ticket in tickets:
            ticket.next_in_line = alone  # another backlog may have said otherwise
        tickets[-1].promised_s = wait_s
        if first.request is None:
            line.singles.extend(tickets)
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
            raise OverloadedError(
                f"{of_kind} images wait for {first.model[0]}; "
                f"at most {self.capacity} may",
                retry_after_s=max(coming_s, self.predicted_wait_s(first.model)),
            )
        wait_s, own_s = self._predicted_s(tickets, coming)
        if line or coming:
            self._check_deadline(first, now, wait_s=wait_s, own_s=own_s)
        return wait_s

    def take(self, now: float) -> Cut | None:
        """Cut the next batch for a lane that is free; None when nothing waits."""
        expired: list[Ticket] = []
        withdrawn: list[Ticket] = []
        while line := min(self._occupied(), key=lambda each: each.used_s, default=None):
            batch: list[Ticket] = []
            limit = line.limit
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
                self.busy += 1
                self._in_hand += len(batch)
                return Cut(batch, expired, withdrawn)
        return Cut([], expired, withdrawn) if expired or withdrawn else None

    def clear(self) -> list[Ticket]:
        """Take out everything that waits."""
        waiting = []
        for line in self._lines.values():
            waiting += [line.pop() for _ in range(len(line))]
        return waiting

    def finish(self, key: ModelKey, images: int, lane_s: float | None) -> None:
        """A lane is free again; learn what its batch of `images` has cost.

        None, if it was left behind.
        """
        self.busy -= 1
        self._in_hand -= images
        line = self._lines[key]
        if lane_s is not None:
            cost_s = min(lane_s / images, MAX_SURPRISE * line.cost_s)
            line.cost_s += COST_WEIGHT * (cost_s - line.cost_s)

    def predicted_wait_s(self, key: ModelKey) -> float:
        """How long until all that waits in this line now is served."""
        return self._wait_s(key, len(self._lines[key]))

    def _check_deadline(
        self, first: Ticket, now: float, *, wait_s: float, own_s: float
    ) -> None:
        """Raises OverloadedError if the last image of its request could be too late."""
        needed_s = SAFETY * self._lines[first.model].stretch(now) * wait_s + own_s
        if first.deadline is not None and now + needed_s > first.deadline:
            left_s = max(0.0, first.deadline - now)
            raise OverloadedError(
                f"the answer could take {needed_s:.2f} s; "
                f"the deadline is in {left_s:.2f} s",
                retry_after_s=self.predicted_wait_s(first.model),
            )

    def _predicted_s(
        self, tickets: Sequence[Ticket], coming: int
    ) -> tuple[float, float]:
        """Seconds until the last of these is taken, and until it is done after that."""
        key, n = tickets[0].model, len(tickets)
        line = self._lines[key]
        single = tickets[0].request is None
        ahead = line.ahead_of_single() if single else line.ahead_of_batch(n) + n - 1
        ahead += coming
        together = min(line.limit, ahead + 1)
        return self._wait_s(key, ahead), together * line.cost_s

    def _wait_s(self, key: ModelKey, ahead: int) -> float:
        """Wait behind `ahead` images of one line, the others having their share."""
        own_s = ahead * self._lines[key].cost_s
        others_s = sum(
            min(own_s, len(line) * line.cost_s)
            for other, line in self._lines.items()
            if other != key
        )
        begun_s = self._lines[key].cost_s * self._in_hand / 2  # half done, on average
        return (own_s + others_s + begun_s) / self.lanes

    def _occupied(self) -> Iterator[Line]:
        return (line for line in self._lines.values() if line)
