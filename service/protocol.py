"""bytes of a connection → **requests**, each on its way: the fast path or ASGI.

A request that is as simple as can be (`POST /classify`, a raw body of declared length,
no header that changes how it is read) is answered straight from the parser's
callbacks by `service/fast_path.py`. If its head came before, it does without the
parser. Every other one is uvicorn's.
"""

from functools import lru_cache
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.bodies import declared_size
from service.exchange import SCOPE_KEY
from service.fast_path import PATH, FastPath, FastRequest, Reply
from service.heads import END, Head, Heads
from service.images import is_raw, media_type_of

POST, URL = b"POST", PATH.encode()
# A request whose body takes longer to come falls back to ASGI, which times it.
BODY_TIMEOUT_S = 1.0
# What is only read behind ASGI, or what changes how the body comes. Browsers,
# proxies and tracing send many other headers, which nobody reads.
TELLING_HEADERS = frozenset((b"content-encoding", b"transfer-encoding", b"expect"))
STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    for status in HTTPStatus
}


class FastPathProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a fast path past ASGI."""

    def __init__(self, fast_path: FastPath, heads: Heads, **given: Any) -> None:
        super().__init__(**given)
        self._fast_path = fast_path
        self._heads = heads
        # A head to learn, and how many bytes came behind it in the same piece.
        self._unknown: tuple[bytes, int] | None = None
        self._coming: FastRequest | None = None  # its body is being received
        self._waiting: FastRequest | None = None  # received, not answered
        self._at_work: RequestResponseCycle | None = None  # the latest begun, of ASGI

    def data_received(self, data: bytes) -> None:
        """Parse; a body that is slow to come is waited for by a timer."""
        super().data_received(data)
        request = self._coming
        if request is not None and request.timer is None:
            request.timer = self.loop.call_later(
                BODY_TIMEOUT_S, self._fall_back_to_asgi, request
            )

    def serve_known(self, data: bytes) -> bool:
        """Serve a request that came whole and alone, if its head is known.

        Call it between requests only. False: the parser has to read it.
        """
        end = data.find(END)
        # Empty lines may stand before a head: the first end could be one of theirs.
        if end < 0 or not data.startswith(POST) or self.flow.write_paused:
            return False
        end += len(END)
        head, body_bytes = data[:end], len(data) - end
        known = self._heads.find(head, body_bytes)
        if known is None:
            self._unknown = head, body_bytes
            return False
        request = self._fast_path.open(known)
        if request is None:
            return False
        if not self._fast_path.hold(request, data[end:]):
            self._fast_path.forget(request)
            return False
        self._unset_keepalive_if_required()
        self.cycle = request  # type: ignore[assignment]  # looks like one
        self._serve(request)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for what was asked here."""
        for request in (self._coming, self._waiting):
            if request is not None:
                self._fast_path.lose(request)
        self._coming = self._waiting = None
        if self._at_work is not None:  # uvicorn tells the newest, which may not run yet
            self._at_work.disconnected = True
            self._at_work.message_event.set()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Choose the fast path or ASGI for this request."""
        unknown, self._unknown = self._unknown, None
        head = self._plain_head()
        request = None if head is None else self._fast_path.open(head)
        if head is None or request is None:
            self._begin_in_turn()
            return
        self._coming = request
        self.cycle = request  # type: ignore[assignment]  # looks like one
        if unknown is not None and unknown[1] == head.body_bytes:
            self._heads.learn(unknown[0], head)

    def on_body(self, body: bytes) -> None:
        """Keep the body; its length was declared, and is allowed."""
        if self._coming is None:
            super().on_body(body)
        elif not self._fast_path.hold(self._coming, body):
            self._fall_back_to_asgi(self._coming)

    def on_message_complete(self) -> None:
        """Serve the request."""
        request, self._coming = self._coming, None
        if request is None:
            super().on_message_complete()
            return
        request.stop_timer()
        self._serve(request)

    def on_response_complete(self) -> None:
        """Go on with the next request, if one was sent ahead."""
        self._at_work = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()

    def _begin_in_turn(self) -> None:
        """Give a request to ASGI, once those before it are answered."""
        super().on_headers_complete()
        if not self.pipeline:
            self._at_work = self.cycle
        elif len(self.pipeline) == 1:
            # uvicorn reads no further, and nobody would see that the client has left
            self.flow.resume_reading()

    def _serve(self, request: FastRequest) -> None:
        self._waiting = request
        self._fast_path.submit(request, self._answered)

    def _plain_head(self) -> Head | None:
        """What the parser has read, if it is a head for the fast path."""
        url = self.url
        if not url.startswith(URL) or url[len(URL) : len(URL) + 1] not in (b"", b"?"):
            return None
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.flow.write_paused:
            return None
        parser = self.parser
        if parser.get_method() != POST:
            return None
        body_bytes = self._plain_body_bytes()
        if not 0 < body_bytes <= self._fast_path.max_bytes:
            return None
        # the same as uvicorn: HTTP/1.0 is answered and closed
        keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        return Head(url[len(URL) + 1 :], self.headers, body_bytes, keep_alive)

    def _plain_body_bytes(self) -> int:
        """The length that the headers declare; 0 if they need to be read by ASGI."""
        length = 0
        for name, value in self.headers:
            match name:
                case b"content-length":
                    length = declared_size(value)
                case b"content-type":
                    if not _is_raw(value):
                        return 0
                case _:
                    if name in TELLING_HEADERS:
                        return 0
        return length

    def _fall_back_to_asgi(self, request: FastRequest) -> None:
        """Begin the request again there, with as much of its body as has come."""
        exchange = self._fast_path.hand_over(request)
        self.scope[SCOPE_KEY] = exchange  # type: ignore[literal-required]
        self._coming = None
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        self._begin_in_turn()
        super().on_body(b"".join(request.chunks))

    def _answered(self, request: FastRequest, reply: Reply) -> None:
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
