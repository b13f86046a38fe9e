"""One waiting image: what a lane needs to serve it and to tell its sender."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from classifier.decode import ImageInfo
from classifier.preprocess import Pixels, Preprocessed
from service.contract import ModelKey, Settle, Settled
from service.errors import DeadlineExceededError

RequestKind = tuple[ModelKey, bool]  # a model, and whether of its batch requests
NO_FILE = ImageInfo(0, 0, "")  # for pixels: there was no file


@dataclass(slots=True, eq=False)
class Ticket:
    """One image of one request. Instants are of `time.monotonic`, in seconds."""

    model: ModelKey
    data: bytes
    arrived: float
    deadline: float | None
    # the batch request that it belongs to; None for a request of one image
    request: object | None = None
    settle: Callable[[Settled], None] | None = None  # None in simulations
    ready: Preprocessed | None = None  # its pixels, once they are decoded
    explain: bool = False  # its sender wants class maps as well
    abandoned: bool = False  # its sender has left, or has been told
    next_in_line: bool = False  # when offered, so only the clock can make it late
    # The last of a request: when it was offered to the backlog, and the wait that was
    # predicted for it then.
    offered: float = 0.0
    promised_s: float = 0.0
    ahead_s: float = 0.0  # what decoding took, if it was done ahead
    taken: float = 0.0  # by a lane
    decoded: float = 0.0

    @property
    def kind(self) -> RequestKind:
        """Its kind of request, each of which has its own room in a queue."""
        return self.model, self.request is not None

    def late(self, now: float) -> bool:
        """Whether an answer at `now` would miss the deadline."""
        return self.deadline is not None and now > self.deadline

    def abandon(self) -> None:
        """Its sender has left: a lane that looks at it later spends no work on it.

        Its bytes and pixels are freed now, not when its turn comes, because no limit
        counts them any more. A lane that reads them just now finds no bytes, or pixels
        of the right shape without memory of their own; its result is dropped.
        """
        if self.ready is not None and not self.abandoned:
            blank = np.broadcast_to(np.uint8(0), self.ready.pixels.shape)
            self.ready = self.ready._replace(pixels=blank)
        self.abandoned = True
        self.data = b""


AnyTicket = TypeVar("AnyTicket", bound=Ticket)


def build_tickets(
    make: Callable[..., AnyTicket],
    key: ModelKey,
    images: Sequence[bytes],
    *,
    deadline: float | None,
    settle: Settle,
    explain: bool,
) -> list[AnyTicket]:
    """A ticket, which `make` builds, for each image of one request."""
    arrived, request = time.monotonic(), object() if len(images) > 1 else None
    return [
        make(
            model=key,
            data=data,
            arrived=arrived,
            deadline=deadline,
            request=request,
            settle=partial(settle, position),
            explain=explain,
        )
        for position, data in enumerate(images)
    ]


def decoded(pixels: Pixels) -> Preprocessed:
    """What `Ticket.ready` is for pixels, uint8 [H, W, C], that came as such."""
    return Preprocessed(pixels, NO_FILE, ())


Results = list[tuple[Ticket, Settled]]


def too_late(tickets: Iterable[Ticket]) -> Results:
    """The error of tickets whose deadline passed before any work was spent on them."""
    late = DeadlineExceededError("the image waited past its deadline")
    return [(ticket, late) for ticket in tickets]


def settle_all(results: Results) -> None:
    """Hand each result to its sender, once. Called on the event loop."""
    for ticket, fate in results:
        if not ticket.abandoned and ticket.settle is not None:
            ticket.abandoned = True
            try:
                ticket.settle(fate)
            except Exception as error:  # border: its mates must hear all the same
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a sender could not be told", "exception": error}
                )
