"""requests → **requests under way**: who has which slot, and what each number means."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.contract import ModelKey
from service.engine.ticket import RequestKind, Ticket


@dataclass(slots=True, eq=False, kw_only=True)
class SlottedTicket(Ticket):
    """A ticket whose pixels are to lie in a slot."""

    slot: int


@dataclass(slots=True, eq=False)
class SlottedRequest:
    """The tickets of one request, each with a slot."""

    tickets: list[SlottedTicket]  # those that are not over
    number: int | None = None  # on the wire, once it was sent
    sent: Sequence[SlottedTicket] = ()  # by their position there


@dataclass(slots=True)
class Underway:
    """All requests of a front-end, and the slots that they have not taken."""

    free: list[int]  # the last given back is taken first: unused ones take no memory
    room: int  # most slots that one kind of request of one model may have
    held: Counter[RequestKind] = field(default_factory=Counter)
    requests: dict[int, SlottedRequest] = field(default_factory=dict)  # sent, by number
    # Seconds between two answers of a model, as the engine measured at its start, and
    # from the arrival of a kind's last image to its answer.
    image_s: dict[ModelKey, float] = field(default_factory=dict)
    spent_s: dict[RequestKind, float] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def room_for(self, kind: RequestKind) -> int:
        """Images of that kind that can be taken just now."""
        return min(self.room - self.held[kind], len(self.free))

    def drained_s(self, kind: RequestKind) -> float:
        """About how long until what is under way now is answered.

        The engine's process knows better, but of what it has heard of alone.
        """
        model, _ = kind
        own_s = self.held[kind] * self.image_s[model]
        return max(own_s, self.spent_s.get(kind, 0.0))

    def take(self, kind: RequestKind) -> int:
        """A slot for one more image, where there is room for it."""
        self.held[kind] += 1
        return self.free.pop()

    def give_back(self, ticket: SlottedTicket) -> None:
        """Nobody reads or writes its slot any more."""
        self.held[ticket.kind] -= 1
        self.free.append(ticket.slot)

    def send(self, request: SlottedRequest) -> int:
        """Give a request its number; the tickets that it has now go to the engine."""
        request.sent = tuple(request.tickets)
        request.number = next(self._numbers)
        self.requests[request.number] = request
        return request.number

    def end(self, request: SlottedRequest, ticket: SlottedTicket) -> None:
        """A ticket needs its slot no longer."""
        request.tickets.remove(ticket)
        self.give_back(ticket)
        if not request.tickets and request.number is not None:
            self.requests.pop(request.number, None)
