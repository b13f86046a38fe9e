"""tiny PNG → **outcome**, on the event loop: one batch a turn of the loop.

A 28x28 PNG decodes in 40 µs and costs a small network 20 µs; handing it to a thread and
back costs more than both. What all connections deliver in one turn of the loop is run
in the next, so batches grow with the load by themselves. A turn takes no more than the
line of a lane may hold, and no more than can be answered before its deadline.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from classifier.decode import DecodeLimits
from classifier.small_png import BEGINNING, HEADER_END
from service.contract import ModelKey, Settle
from service.engine.decoding import decode_ticket
from service.engine.line import MAX_SURPRISE, moved, no_room, no_time
from service.engine.models import INLINE_COST_S, EngineModel
from service.engine.run import run_together
from service.engine.ticket import Results, Ticket, settle_all, too_late
from service.errors import EngineFailedError

# What may be decoded on the event loop. At worst, 16-bit RGBA of 128x128, 2.6 ms where
# a 28x28 digit took 0.1 (processor time, on a core that others used too).
MAX_BYTES = 8 * 1024
MAX_PIXELS = 128 * 128
# Only PNGs of few chunks and of these kinds. Others may hold what costs far more than
# pixels: a text of 3 KB unpacked to EXIF that took 70 ms to read.
PLAIN_CHUNKS = frozenset(
    (
        *(b"PLTE", b"tRNS", b"IDAT", b"gAMA", b"cHRM", b"sRGB"),
        *(b"pHYs", b"bKGD", b"sBIT", b"tIME"),
    )
)
MAX_CHUNKS = 16
MAX_BATCH = 32


@dataclass(slots=True, eq=False)
class InlineLine:
    """The images that wait for one model, and what serving them costs."""

    model: EngineModel
    waiting: deque[Ticket] = field(default_factory=deque)
    cost_s: float = INLINE_COST_S  # to decode, run and answer an image; learned
    began: float = 0.0  # instant of the first image of this turn
    read_s: float = 0.0  # from there to the first run, in the turn before
    turn_s: float = 0.0  # from there to the last answer, in the turn before

    def check_room(self, capacity: int) -> None:
        """Raises OverloadedError if as many wait as may."""
        if len(self.waiting) >= capacity:
            raise no_room(
                self.model.key,
                len(self.waiting),
                1,
                capacity=capacity,
                retry_after_s=self.predicted_wait_s(),
            )

    def check_deadline(self, now: float, deadline: float) -> None:
        """Raises OverloadedError if one more could be too late."""
        # The image may have waited in its socket for all of the last turn. Before it is
        # run, this turn goes on reading requests for as long as the last one did.
        to_read_s = max(0.0, self.began + self.read_s - now)
        needed_s = self.turn_s + to_read_s + (len(self.waiting) + 1) * self.cost_s
        if now + needed_s > deadline:
            raise no_time(
                needed_s, deadline - now, retry_after_s=self.predicted_wait_s()
            )

    def predicted_wait_s(self) -> float:
        """How long until all that waits now is served."""
        return len(self.waiting) * self.cost_s

    def cut(self) -> list[Ticket]:
        """Take the next batch out."""
        size = min(len(self.waiting), MAX_BATCH)
        return [self.waiting.popleft() for _ in range(size)]

    def learn(self, found_s: float, images: int) -> None:
        """Learn from images that took `found_s` to decode, run and answer."""
        most_s = MAX_SURPRISE * self.cost_s
        self.cost_s = moved(self.cost_s, found_s / images, most_s=most_s)

    def end_turn(self, *, began: float, now: float) -> None:
        """Keep how long this turn took; the next one is predicted by it."""
        self.read_s, self.turn_s = began - self.began, now - self.began


class InlineLane:
    """Serves the models that are cheap enough. Lives on one event loop."""

    def __init__(
        self,
        models: Mapping[ModelKey, EngineModel],
        loop: asyncio.AbstractEventLoop,
        *,
        limits: DecodeLimits,
        capacity: int,
    ) -> None:
        """`limits` and `capacity` are those of the lanes."""
        self._lines = {
            key: InlineLine(model) for key, model in models.items() if model.inline
        }
        self.serves_all = len(self._lines) == len(models)  # so HTTP is the limit
        self._loop = loop
        self._limits = DecodeLimits(max_pixels=min(MAX_PIXELS, limits.max_pixels))
        self._capacity = capacity

    def waiting(self, key: ModelKey) -> int:
        """Images of that model that wait."""
        return len(self._lines[key].waiting) if key in self._lines else 0

    def submit(
        self, key: ModelKey, data: bytes, settle: Settle, *, deadline: float | None
    ) -> bool:
        """Take an image if model and image are small; False sends it to a lane.

        `settle` is called in the next turn of the loop.

        Raises:
            OverloadedError: the line is full, or too long for the deadline. The first
                of a turn is taken, as only a run corrects what was learned.
        """
        line = self._lines.get(key)
        if line is None or len(data) > MAX_BYTES or not self._is_tiny(data):
            return False
        arrived = time.monotonic()
        if line.waiting:
            line.check_room(self._capacity)
            if deadline is not None:
                line.check_deadline(arrived, deadline)
        else:
            line.began = arrived
            self._loop.call_soon(self._run, line)
        ticket = Ticket(key, data, arrived, deadline, settle=partial(settle, 0))
        line.waiting.append(ticket)
        return True

    def _is_tiny(self, data: bytes) -> bool:
        pixels = plain_png_pixels(data)
        # else a lane decides, by the real limits
        return pixels is not None and pixels <= self._limits.max_pixels

    def _run(self, line: InlineLine) -> None:
        """Serve all that waits, before the loop reads what came meanwhile."""
        began, spent_s, images = time.monotonic(), 0.0, 0
        try:
            while line.waiting:
                took_s, ran = self._serve(line.model, line.cut())
                spent_s += took_s
                images += ran
        finally:
            if images:
                line.learn(spent_s, images)
            line.end_turn(began=began, now=time.monotonic())
            if line.waiting:  # a fault in a batch must not stop the next
                self._loop.call_soon(self._run, line)

    def _serve(
        self, model: EngineModel, tickets: Sequence[Ticket]
    ) -> tuple[float, int]:
        """Decode each, run together what has pixels, and answer all.

        Returns the seconds that those with pixels took, and how many they were: what is
        late or no image costs less, and would teach that images cost nothing.
        """
        failed, decoded = self._decode(model, tickets)
        if not decoded:
            settle_all(failed)
            return 0.0, 0
        decode_s = sum(ticket.decoded - ticket.taken for ticket in decoded)
        began = time.monotonic()
        settle_all(_run_batch(decoded, model))
        run_s = time.monotonic() - began
        settle_all(failed)
        return decode_s + run_s, len(decoded)

    def _decode(
        self, model: EngineModel, tickets: Sequence[Ticket]
    ) -> tuple[Results, list[Ticket]]:
        """Those that get an error, and those that have pixels."""
        failed: Results = []
        decoded = []
        now = time.monotonic()
        for ticket in tickets:
            if ticket.late(now):
                failed += too_late([ticket])
                continue
            ticket.taken = now
            spec = model.manifest.preprocess
            error = decode_ticket(ticket, spec, limits=self._limits)
            ticket.decoded = now = time.monotonic()
            if error is None:
                decoded.append(ticket)
            else:
                failed.append((ticket, error))
        return failed, decoded


def plain_png_pixels(data: bytes) -> int | None:
    """Pixels that a PNG of few and plain chunks declares; None of any other file."""
    if not data.startswith(BEGINNING):
        return None
    position, width_at = HEADER_END, len(BEGINNING)
    for _ in range(MAX_CHUNKS):
        kind = data[position + 4 : position + 8]
        if kind not in PLAIN_CHUNKS:
            break
        position += 12 + int.from_bytes(data[position : position + 4])
    if kind != b"IEND":
        return None
    width = int.from_bytes(data[width_at : width_at + 4])
    return width * int.from_bytes(data[width_at + 4 : width_at + 8])


def _run_batch(tickets: list[Ticket], model: EngineModel) -> Results:
    try:
        return run_together(tickets, model, model.session)
    except Exception as error:  # border: else those who wait would never be told
        failed = EngineFailedError.caused_by(error, "the batch could not be run")
        return [(ticket, failed) for ticket in tickets]
