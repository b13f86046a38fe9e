"""requests → **requests under way**: who has which slot, and what each number means."""

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.engine.ticket import Ticket


@dataclass(slots=True, eq=False, kw_only=True)
class SlottedTicket(Ticket):
    """A ticket whose pixels are to lie in a slot."""

    slot: int


@dataclass(slots=True, eq=False)
class Request:
    """The images of one request."""

    tickets: list[SlottedTicket]  # those that are not over
    number: int | None = None  # on the wire, once it was sent
    sent: Sequence[SlottedTicket] = ()  # by their position there


@dataclass(slots=True)
class Underway:
    """All requests of a front-end, and the slots that they have not taken."""

    free: deque[int]
    requests: dict[int, Request] = field(default_factory=dict)  # sent, by number
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def send(self, request: Request) -> int:
        """Give a request its number: what it has now goes to the engine."""
        request.sent = tuple(request.tickets)
        request.number = next(self._numbers)
        self.requests[request.number] = request
        return request.number

    def end(self, request: Request, ticket: SlottedTicket) -> None:
        """A ticket needs its slot no longer."""
        request.tickets.remove(ticket)
        self.free.append(ticket.slot)
        if not request.tickets and request.number is not None:
            self.requests.pop(request.number, None)
