"""tiny image → **outcome**, on the event loop: one batch a turn of the loop.

A 28x28 PNG decodes in 40 µs and costs a small network 20 µs; handing it to a thread and
back costs more than both. What all connections deliver in one turn of the loop is run
as one batch in the next, so batches grow with the load by themselves.
"""

import asyncio
import time
from collections.abc import Mapping

import numpy as np

from classifier.decode import DecodeLimits
from classifier.errors import ImageTooLargeError
from classifier.preprocess import preprocess
from service.contract import ModelKey
from service.engine.isolation import run_isolated
from service.engine.lane import outcome
from service.engine.models import ServedModel
from service.engine.ticket import Settled, Ticket

# What may be decoded on the event loop: about 100 µs at worst.
MAX_BYTES = 8 * 1024
LIMITS = DecodeLimits(max_pixels=128 * 128)
MAX_BATCH = 32


class InlineLane:
    """Serves the models that are cheap enough. Lives on one event loop."""

    def __init__(
        self, models: Mapping[ModelKey, ServedModel], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._models = {key: model for key, model in models.items() if model.inline}
        self._loop = loop
        self._waiting: dict[ModelKey, list[Ticket]] = {}

    def submit(
        self, key: ModelKey, data: bytes, deadline: float | None
    ) -> "asyncio.Future[Settled] | None":
        """Take an image if model and image are small; None sends it to a lane.

        Raises:
            ImageError: the image cannot be used.
        """
        model = self._models.get(key)
        if model is None or len(data) > MAX_BYTES:
            return None
        arrived = time.monotonic()
        try:
            ready = preprocess(data, model.manifest.preprocess, limits=LIMITS)
        except ImageTooLargeError:
            return None  # a lane decides by the real limits
        ticket = Ticket(key, data, arrived, deadline, future=self._loop.create_future())
        ticket.taken, ticket.ready, ticket.decoded = arrived, ready, time.monotonic()
        waiting = self._waiting.setdefault(key, [])
        waiting.append(ticket)
        if len(waiting) == 1:
            self._loop.call_soon(self._run, key)
        return ticket.future

    def _run(self, key: ModelKey) -> None:
        waiting = self._waiting.pop(key, [])
        for start in range(0, len(waiting), MAX_BATCH):
            self._run_batch(self._models[key], waiting[start : start + MAX_BATCH])

    def _run_batch(self, model: ServedModel, tickets: list[Ticket]) -> None:
        tickets = [t for t in tickets if t.future and not t.future.done()]
        pixels = [ticket.ready.pixels for ticket in tickets if ticket.ready]
        if not pixels:
            return
        began = time.monotonic()
        rows = run_isolated(model.narrow.run, np.stack(pixels))
        run = began, time.monotonic(), len(rows)
        for ticket, row in zip(tickets, rows, strict=True):
            if ticket.future is not None:
                ticket.future.set_result(outcome(ticket, row, run))
