"""socket → **body**: bounded in bytes, in time, and in what all requests hold."""

import asyncio
import time

from starlette.types import Receive, Scope

from service.errors import BodyTimeoutError, BodyTooLargeError, OverloadedError
from service.exchange import ClientGoneError, Exchange, exchange_of

UINT64_DIGITS = 20


class Bodies:
    """Reads request bodies whole, within one allowance for the process."""

    def __init__(self, *, max_buffered_bytes: int, timeout_s: float) -> None:
        self._max_buffered_bytes = max_buffered_bytes
        self._timeout_s = timeout_s
        self.buffered_bytes = 0

    async def read(self, scope: Scope, receive: Receive, *, limit: int) -> bytes:
        """The whole body. `release` must follow, also when this raises.

        Raises:
            BodyTooLargeError: more than `limit` bytes, declared or sent.
            BodyTimeoutError: the client was too slow.
            OverloadedError: all bodies together are at the bound.
            ClientGoneError: the connection closed before the end.
        """
        for name, value in scope["headers"]:
            # Checked before a byte is read, so `Expect: 100-continue` saves the upload.
            if name == b"content-length":
                check_size(declared_size(value), limit)
        exchange = exchange_of(scope)
        try:
            # the fast path may have waited for it before
            waited_s = time.perf_counter() - exchange.started_s
            async with asyncio.timeout(self._timeout_s - waited_s):
                body, more = await self._next(receive, exchange, limit)
                if not more:
                    return body  # the usual case, which copies nothing
                whole = bytearray(body)  # a list of one-byte chunks would cost 50 times
                while more:
                    chunk, more = await self._next(receive, exchange, limit)
                    whole += chunk
                return bytes(whole)
        except TimeoutError as error:
            raise BodyTimeoutError(
                f"the body did not arrive within {self._timeout_s:g} s"
            ) from error

    def hold(self, size: int, exchange: Exchange, *, limit: int) -> None:
        """Count bytes that have arrived for a request.

        Raises:
            BodyTooLargeError, OverloadedError: as `read`.
        """
        exchange.held_bytes += size
        self.buffered_bytes += size
        check_size(exchange.held_bytes, limit)
        if self.buffered_bytes > self._max_buffered_bytes:
            raise OverloadedError(
                f"all request bodies together are over {self._max_buffered_bytes} bytes"
            )

    def release(self, exchange: Exchange) -> None:
        """Give back what this request held."""
        self.buffered_bytes -= exchange.held_bytes
        exchange.held_bytes = 0

    async def _next(
        self, receive: Receive, exchange: Exchange, limit: int
    ) -> tuple[bytes, bool]:
        """The next chunk, counted, and whether another one follows."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        self.hold(len(chunk), exchange, limit=limit)
        return chunk, message.get("more_body", False)


def declared_size(value: bytes) -> int:
    """A `Content-Length`: digits of a number of 64 bits, or the parser had refused it.

    Any zeros may stand before them, and `int` takes 4,300 digits in all.
    """
    return int(value.strip()[-UINT64_DIGITS:])


def check_size(size: int, limit: int) -> None:
    """Raises BodyTooLargeError."""
    if size > limit:
        raise BodyTooLargeError(
            f"the body has {size} bytes or more; at most {limit} are accepted here"
        )


def image_too_large(size: int, limit: int) -> BodyTooLargeError:
    """What is wrong with one image of many that has more bytes than one may have."""
    return BodyTooLargeError(
        f"the image has {size} bytes; at most {limit} are accepted for one"
    )
