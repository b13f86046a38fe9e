"""bytes of a connection → **requests**, each on its way: the short one or ASGI.

A request that is as simple as can be (`POST /classify`, a raw body of declared length,
no header that changes how it is read) is answered straight from the parser's
callbacks by `service/express.py`. Every other one is uvicorn's.
"""

from functools import lru_cache
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.express import PATH, Express, Parcel, Reply
from service.images import is_raw, media_type_of

URL = PATH.encode()
# A body that takes longer to come goes the ordinary way, where it is timed.
PATIENCE_S = 1.0
# What only the ordinary way reads, or what changes how the body comes. Browsers,
# proxies and tracing send many other headers, which nobody reads.
TELLING_HEADERS = frozenset(
    (b"content-encoding", b"transfer-encoding", b"expect", b"upgrade")
)
STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    for status in HTTPStatus
}


class ExpressProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a short way past it."""

    def __init__(self, express: Express, **given: Any) -> None:
        super().__init__(**given)
        self._express = express
        self._coming: Parcel | None = None  # its body is being received
        self._waiting: Parcel | None = None  # received, not answered

    def data_received(self, data: bytes) -> None:
        """Parse; a body that is slow to come is waited for by a timer."""
        super().data_received(data)
        parcel = self._coming
        if parcel is not None and parcel.timer is None:
            parcel.timer = self.loop.call_later(PATIENCE_S, self._lose_patience, parcel)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for what was asked here."""
        for parcel in (self._coming, self._waiting):
            if parcel is not None:
                self._express.lose(parcel)
        self._coming = self._waiting = None
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Choose the way of this request."""
        if self._is_simple():
            query = self.url[len(URL) + 1 :]
            # the same as uvicorn: HTTP/1.0 is answered and closed
            parser = self.parser
            keep_alive = (
                parser.get_http_version() != "1.0" and parser.should_keep_alive()
            )
            self._coming = self._express.open(
                query, self.headers, keep_alive=keep_alive
            )
        if self._coming is None:
            super().on_headers_complete()
        else:
            self.cycle = self._coming  # type: ignore[assignment]  # looks like one

    def on_body(self, body: bytes) -> None:
        """Keep the body; its length was declared, and is allowed."""
        if self._coming is None:
            super().on_body(body)
        elif not self._express.hold(self._coming, body):
            self._go_the_ordinary_way(self._coming)

    def on_message_complete(self) -> None:
        """Serve the request."""
        parcel, self._coming = self._coming, None
        if parcel is None:
            super().on_message_complete()
            return
        parcel.stop_timer()
        self._waiting = parcel
        self._express.submit(parcel, self._answered)

    def _is_simple(self) -> bool:
        url = self.url
        if not url.startswith(URL) or url[len(URL) : len(URL) + 1] not in (b"", b"?"):
            return False
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.flow.write_paused:
            return False
        if self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        return self._has_simple_headers()

    def _has_simple_headers(self) -> bool:
        length = 0
        for name, value in self.headers:
            match name:
                case b"content-length":
                    length = int(value)  # digits, or the parser had refused it
                case b"content-type":
                    if not _is_raw(value):
                        return False
                case _:
                    if name in TELLING_HEADERS:
                        return False
        return 0 < length <= self._express.max_bytes

    def _lose_patience(self, parcel: Parcel) -> None:
        if self._coming is parcel and not self.transport.is_closing():
            self._go_the_ordinary_way(parcel)

    def _go_the_ordinary_way(self, parcel: Parcel) -> None:
        """Begin again there, with as much of the body as has come."""
        self._express.forget(parcel)
        self._coming = None
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        super().on_headers_complete()
        super().on_body(b"".join(parcel.chunks))

    def _answered(self, parcel: Parcel, reply: Reply) -> None:
        self._waiting = None
        if self.transport.is_closing():
            return
        parts = [STATUS_LINES[reply.status]]
        for name, value in (*self.server_state.default_headers, *reply.headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n", reply.body)
        self.transport.write(b"".join(parts))
        if reply.closes:
            self.transport.close()
        self.on_response_complete()


@lru_cache(maxsize=16)
def _is_raw(content_type: bytes) -> bool:
    """Clients send a few only, and to read one anew costs as much as all the rest."""
    return is_raw(media_type_of(content_type.decode("latin-1")))
