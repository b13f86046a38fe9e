"""tickets → **decoded tickets**, before the backlog: for a GPU, and in front-ends.

A GPU runs a batch in the time that a core decodes one photo, so its lanes must find
pixels ready. On a CPU lanes decode themselves, while the bytes are warm in their cache.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from classifier.decode import DecodeLimits
from classifier.manifest import PreprocessSpec
from service.contract import ModelKey, Settled
from service.engine.decoding import Keep, as_it_is, decode_ticket
from service.engine.ticket import Ticket
from service.errors import DrainingError, OverloadedError

# Weight of the newest image in the running mean of what decoding one takes.
COST_WEIGHT = 0.05
# Predictions err both ways; pixels that are ready too late were decoded for nothing.
SAFETY = 1.3


class DecodeAhead:
    """A bounded pool of decoders. Lives on one event loop."""

    def __init__(
        self,
        specs: Mapping[ModelKey, PreprocessSpec],
        *,
        limits: DecodeLimits,
        capacity: int,
        threads: int,
        keep: Keep = as_it_is,
    ) -> None:
        """`keep` is called in the decoding thread: what it returns is the ticket's."""
        self._specs = specs
        self._limits = limits
        self._capacity = capacity
        self._threads = threads
        self._keep = keep
        self._at_work = 0
        self._closed = False
        self._cost_s = 0.0  # of one image in one thread, learned
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def decode(self, tickets: Sequence[Ticket]) -> dict[Ticket, Settled]:
        """Decode the tickets of one request; returns those that have no pixels.

        Raises:
            OverloadedError: as many images as may wait are being decoded, or these
                could not be before their deadline.
            DrainingError: the pool has ended.
        """
        self._admit(tickets)
        loop = asyncio.get_running_loop()
        self._at_work += len(tickets)
        try:
            work = (loop.run_in_executor(self._pool, self._decode, t) for t in tickets)
            errors = await asyncio.gather(*work)
        finally:
            self._at_work -= len(tickets)
        for ticket in tickets:
            if ticket.ahead_s:
                self._cost_s += COST_WEIGHT * (ticket.ahead_s - self._cost_s)
        return {t: e for t, e in zip(tickets, errors, strict=True) if e is not None}

    def close(self) -> None:
        """End the pool. Who awaits `decode` then may be cancelled: settle for them."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _admit(self, tickets: Sequence[Ticket]) -> None:
        if self._closed:
            raise DrainingError("the service is about to stop")
        wait_s = self._at_work * self._cost_s / self._threads
        if self._at_work + len(tickets) > self._capacity:
            raise OverloadedError(
                f"{self._at_work} images are being decoded; at most "
                f"{self._capacity} may",
                retry_after_s=wait_s,
            )
        deadline = tickets[0].deadline
        needed_s = SAFETY * (wait_s + len(tickets) * self._cost_s / self._threads)
        if deadline is not None and time.monotonic() + needed_s > deadline:
            raise OverloadedError(
                f"decoding alone could take {needed_s:.2f} s, which is past the "
                "deadline",
                retry_after_s=wait_s,
            )

    def _decode(self, ticket: Ticket) -> Settled | None:
        if ticket.abandoned:
            return None
        began = time.monotonic()
        failed = decode_ticket(
            ticket, self._specs[ticket.model], limits=self._limits, keep=self._keep
        )
        if failed is None:
            ticket.ahead_s = time.monotonic() - began
        return failed
