"""tickets → **decoded tickets**, before the backlog: for a GPU.

A GPU runs a batch in the time that a core decodes one photo, so its lanes must find
pixels ready. On a CPU lanes decode themselves, while the bytes are warm in their cache.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from classifier.decode import DecodeLimits
from classifier.errors import ImageError
from classifier.hardware import available_cores
from classifier.preprocess import preprocess
from service.contract import ModelKey, Settled
from service.engine.models import ServedModel
from service.engine.ticket import Ticket
from service.errors import OverloadedError


class DecodeAhead:
    """A bounded pool of decoders. Lives on one event loop."""

    def __init__(
        self,
        models: Mapping[ModelKey, ServedModel],
        *,
        limits: DecodeLimits,
        capacity: int,
    ) -> None:
        self._models = models
        self._limits = limits
        self._capacity = capacity
        self._at_work = 0
        self._pool = ThreadPoolExecutor(available_cores(), thread_name_prefix="decode")

    async def decode(self, tickets: Sequence[Ticket]) -> dict[Ticket, Settled]:
        """Decode the tickets of one request; returns those that have no pixels.

        Raises:
            OverloadedError: as many images as may wait are being decoded.
        """
        if self._at_work + len(tickets) > self._capacity:
            raise OverloadedError(
                f"{self._at_work} images are being decoded; at most "
                f"{self._capacity} may",
                retry_after_s=1.0,
            )
        loop = asyncio.get_running_loop()
        self._at_work += len(tickets)
        try:
            work = (loop.run_in_executor(self._pool, self._decode, t) for t in tickets)
            errors = await asyncio.gather(*work)
        finally:
            self._at_work -= len(tickets)
        return {t: e for t, e in zip(tickets, errors, strict=True) if e is not None}

    def close(self) -> None:
        """End the pool."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, ticket: Ticket) -> Settled | None:
        spec = self._models[ticket.model].manifest.preprocess
        try:
            ticket.ready = preprocess(ticket.data, spec, limits=self._limits)
        except ImageError as error:
            return error
        return None
