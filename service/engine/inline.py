"""tiny PNG → **outcome**, on the event loop: one batch a turn of the loop.

A 28x28 PNG decodes in 40 µs and costs a small network 20 µs; handing it to a thread and
back costs more than both. What all connections deliver in one turn of the loop is run
as one batch in the next, so batches grow with the load by themselves.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from classifier.decode import DecodeLimits
from classifier.errors import ImageTooLargeError
from service.contract import ModelKey, Settle, Settled
from service.engine.decoding import decode_ticket
from service.engine.isolation import run_isolated
from service.engine.lane import outcome, scored
from service.engine.models import ServedModel
from service.engine.ticket import Ticket
from service.errors import EngineFailedError

# What may be decoded on the event loop. At worst, 16-bit RGBA of 128x128, 2.6 ms where
# a 28x28 digit took 0.1 (processor time, on a core that others used too).
MAX_BYTES = 8 * 1024
MAX_PIXELS = 128 * 128
# Only PNGs of few chunks and of these kinds. Others may hold what costs far more than
# pixels: a text of 3 KB unpacked to EXIF that took 70 ms to read.
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PLAIN_CHUNKS = frozenset(
    (
        *(b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"gAMA", b"cHRM", b"sRGB"),
        *(b"pHYs", b"bKGD", b"sBIT", b"tIME"),
    )
)
MAX_CHUNKS = 16
MAX_BATCH = 32


@dataclass(slots=True)
class Waiting:
    """A decoded image, and whom to tell."""

    ticket: Ticket
    settle: Settle


class InlineLane:
    """Serves the models that are cheap enough. Lives on one event loop."""

    def __init__(
        self,
        models: Mapping[ModelKey, ServedModel],
        loop: asyncio.AbstractEventLoop,
        *,
        limits: DecodeLimits,
    ) -> None:
        """`limits` are those of the lanes."""
        self._models = {key: model for key, model in models.items() if model.inline}
        self.serves_all = len(self._models) == len(models)  # so HTTP is the limit
        self._loop = loop
        self._limits = DecodeLimits(max_pixels=min(MAX_PIXELS, limits.max_pixels))
        self._waiting: dict[ModelKey, list[Waiting]] = {}

    def serves(self, key: ModelKey) -> bool:
        """Whether images for that model may come here at all."""
        return key in self._models

    def submit(self, key: ModelKey, data: bytes, settle: Settle) -> bool:
        """Take an image if model and image are small; False sends it to a lane.

        `settle` is called in the next turn of the loop.
        """
        model = self._models.get(key)
        if model is None or len(data) > MAX_BYTES or not is_plain_png(data):
            return False
        arrived = time.monotonic()
        ticket = Ticket(key, data, arrived, None)
        failed = decode_ticket(ticket, model.manifest.preprocess, limits=self._limits)
        if isinstance(failed, ImageTooLargeError):
            return False  # a lane decides by the real limits
        if failed is not None:
            self._loop.call_soon(settle, 0, failed)
            return True
        ticket.taken, ticket.decoded = arrived, time.monotonic()
        waiting = self._waiting.setdefault(key, [])
        waiting.append(Waiting(ticket, settle))
        if len(waiting) == 1:
            self._loop.call_soon(self._run, key)
        return True

    def _run(self, key: ModelKey) -> None:
        waiting, model = self._waiting.pop(key, []), self._models[key]
        for start in range(0, len(waiting), MAX_BATCH):
            batch = waiting[start : start + MAX_BATCH]
            fates = _run_batch(model, [each.ticket for each in batch])
            for each, fate in zip(batch, fates, strict=True):
                each.settle(0, fate)


def is_plain_png(data: bytes) -> bool:
    """Whether it has few chunks, and none that is costly to read."""
    position = len(PNG_SIGNATURE)
    if data[:position] != PNG_SIGNATURE:
        return False
    for _ in range(MAX_CHUNKS):
        kind = data[position + 4 : position + 8]
        if kind not in PLAIN_CHUNKS:
            return kind == b"IEND"
        position += 12 + int.from_bytes(data[position : position + 4])
    return False


def _run_batch(model: ServedModel, tickets: Sequence[Ticket]) -> Sequence[Settled]:
    pixels = [ticket.ready.pixels for ticket in tickets if ticket.ready]
    began = time.monotonic()
    try:
        rows = run_isolated(model.session.run, np.stack(pixels))
        run = began, time.monotonic(), len(rows)
        found = zip(tickets, scored(rows, model), strict=True)
        return [outcome(ticket, row, run) for ticket, row in found]
    except Exception as error:  # border: no deadline would tell those who wait
        failed = EngineFailedError("the batch could not be run")
        failed.__cause__ = error
        return [failed] * len(tickets)
