"""One waiting image: what a lane needs to serve it and to tell its sender."""

import asyncio
from dataclasses import dataclass, field

from classifier.errors import ClassifierError
from classifier.preprocess import Preprocessed
from service.contract import ModelKey, Outcome
from service.errors import ServiceError

Settled = Outcome | ClassifierError | ServiceError


@dataclass(slots=True, eq=False)
class Ticket:
    """One image of one request. Instants are of `time.monotonic`, in seconds."""

    model: ModelKey
    data: bytes
    arrived: float
    deadline: float | None
    # the batch request that it belongs to; None for a request of one image
    request: object | None = None
    future: "asyncio.Future[Settled] | None" = None  # None in simulations
    ready: Preprocessed | None = None  # decoded ahead of the lane
    explain: bool = False  # its sender wants class maps as well
    abandoned: bool = False  # its sender has left
    taken: float = 0.0
    decoded: float = field(default=0.0)

    def late(self, now: float) -> bool:
        """Whether an answer at `now` would miss the deadline."""
        return self.deadline is not None and now > self.deadline
