"""The tickets of one model that wait: their order, their cost, and refusals."""

from collections import deque
from dataclasses import dataclass, field
from math import inf

from service.contract import ModelKey
from service.engine.ticket import Ticket
from service.errors import OverloadedError

SINGLES_PER_BATCH_ITEM = 3
# Weight of the newest batch in the running means of what an image costs.
COST_WEIGHT = 0.1
# One batch is believed to cost at most so many times what was known: a machine that was
# frozen for a minute says nothing of the next image.
MAX_SURPRISE = 4.0
# Waits that were longer than predicted are believed at once and forgotten slowly: what
# slowed the machine down, or took places, may come again.
LONGER_WEIGHT, FORGOTTEN_S, MAX_STRETCH = 0.5, 30.0, 3.0
# Where no single image came for so long, none is expected that would wait for a run.
SINGLES_EXPECTED_S = 10.0
# A wait of fewer images than this says more of chance than of the prediction.
TELLING_WAIT = 8


@dataclass(slots=True, eq=False)
class Line:
    """The tickets of one model, and what serving them costs."""

    best_batch: int
    gentle_batch: int  # most images in a run where batch requests and singles meet
    measured_s: float  # seconds of one lane to run an image of a crowd, at the start,
    run_s: float  # ... and as learned
    decode_s: float  # seconds of one lane to decode an image, learned
    abreast: int  # runs that leave each other their speed: so many lanes share
    cost_s: float = field(init=False)  # both together, kept as it is asked for often
    longer: float = 0.0  # by what share waits were longer than predicted, ...
    longer_at: float = 0.0  # ... at that instant
    used_s: float = 0.0  # lane time it has had, on the virtual clock of fair sharing
    single_at: float = -inf  # when the last single image came
    singles: deque[Ticket] = field(default_factory=deque)
    requests: deque[deque[Ticket]] = field(default_factory=deque)
    batch_items: int = 0
    singles_in_a_row: int = 0

    def __len__(self) -> int:
        return len(self.singles) + self.batch_items

    def __post_init__(self) -> None:
        self.cost_s = self.decode_s + self.run_s

    def ahead_of_single(self) -> int:
        """Images that go before a request of one image that arrives now."""
        turns = len(self.singles) // SINGLES_PER_BATCH_ITEM + 1
        return len(self.singles) + min(self.batch_items, turns)

    def ahead_of_batch(self, items: int) -> int:
        """Images that go before the last of a batch request that arrives now."""
        turns = SINGLES_PER_BATCH_ITEM * (self.batch_items + items)
        return self.batch_items + min(len(self.singles), turns)

    def limit(self, now: float) -> int:
        """Most images in the next run.

        Where batch requests wait and single images come too, runs are small: the items
        lose little by it, and a single image that arrives meanwhile waits for the end
        of a run.
        """
        meeting = self.requests and now - self.single_at < SINGLES_EXPECTED_S
        return self.gentle_batch if meeting else self.best_batch

    def stretch(self, now: float) -> float:
        """The factor by which waits were longer than predicted, of late; at least 1."""
        forgotten: float = 0.5 ** ((now - self.longer_at) / FORGOTTEN_S)
        return 1.0 + self.longer * forgotten

    def learn_cost(self, *, decode_s: float, run_s: float | None) -> None:
        """Compare what an image took with what was known; see `Backlog.finish`."""
        most_s = MAX_SURPRISE * self.cost_s
        # If a crowd were believed too expensive, all images but one at a time could be
        # refused. With one lane no crowd would form then, and nothing would correct it.
        found_s = min(self.run_s, self.measured_s) if run_s is None else run_s
        self.run_s = moved(self.run_s, found_s, most_s=most_s)
        self.decode_s = moved(self.decode_s, decode_s, most_s=most_s)
        self.cost_s = self.decode_s + self.run_s

    def learn_wait(self, ticket: Ticket, now: float) -> None:
        """Compare how long a ticket has waited with what was predicted."""
        if ticket.promised_s < TELLING_WAIT * self.cost_s:
            return
        found = min(MAX_STRETCH, (now - ticket.offered) / ticket.promised_s)
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


def moved(known_s: float, found_s: float, *, most_s: float) -> float:
    """A running mean after one more batch, of which at most `most_s` is believed."""
    return known_s + COST_WEIGHT * (min(found_s, most_s) - known_s)


def no_room(
    key: ModelKey, waiting: int, more: int, *, capacity: int, retry_after_s: float
) -> OverloadedError:
    """The refusal when so many more images of a kind would wait than may."""
    return OverloadedError(
        f"{waiting} images wait for {key[0]}, and {more} more came; "
        f"at most {capacity} may wait",
        retry_after_s=retry_after_s,
    )


def no_time(needed_s: float, left_s: float, *, retry_after_s: float) -> OverloadedError:
    """The refusal when an answer could take longer than is left for it."""
    return OverloadedError(
        f"the answer could take {needed_s:.2f} s; "
        f"the deadline is in {max(0.0, left_s):.2f} s",
        retry_after_s=retry_after_s,
    )
