"""socket → **request head**, bounded in bytes and in time.

httptools keeps headers for as long as they come, and uvicorn's timers begin with the
first answer: one client could hold a connection for ever, or fill the memory.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# What nginx and h11 allow by default, together.
MAX_HEAD_BYTES = 64 * 1024


class BoundedHead(HttpToolsProtocol):
    """Mix in before a protocol: refuses a head that is too large or too slow.

    The usual head arrives whole in one piece and costs nothing here but two flags.
    """

    def __init__(self, *arguments: Any, head_timeout_s: float, **given: Any) -> None:
        super().__init__(*arguments, **given)
        self._head_timeout_s = head_timeout_s
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head, but not for ever."""
        super().connection_made(transport)
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, then look whether the head is still not complete."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._head_timer is None:
            self._time_head()

    def on_message_begin(self) -> None:
        """A new head begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete; from here on the body has bounds of its own."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _time_head(self) -> None:
        self._head_timer = self.loop.call_later(
            self._head_timeout_s, self._refuse, HTTPStatus.REQUEST_TIMEOUT
        )

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        """There is no request yet that a problem could belong to: a bare status."""
        if self.transport.is_closing():
            return
        self.transport.write(
            b"HTTP/1.1 %d %b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            % (status, status.phrase.encode())
        )
        self.transport.close()
