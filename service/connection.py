"""socket → **request**, bounded in bytes and in time, whatever surrounds its body.

httptools keeps headers and trailers for as long as they come, uvicorn's timers begin
with the first answer and end with the next byte, whatever that belongs to, and a piece
of data may hold ten thousand requests: one client could hold a connection for ever, or
fill the memory.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.door import Door
from service.outgoing import LAST_S, Outgoing

# What nginx and h11 allow by default, together.
MAX_HEAD_BYTES = 64 * 1024
# Requests that a client sends ahead of their answers; each is kept until its turn.
MAX_AHEAD = 256
CODING = b"transfer-encoding"


class RefusedError(Exception):
    """Ends the parser's work on a connection that is refused."""


class Parser(httptools.HttpRequestParser):
    """Tells where the parser stopped because a client offers another protocol."""

    def __init__(self, connection: "BoundedConnection") -> None:
        super().__init__(connection)
        self._connection = connection
        # as uvicorn's own: answer a request whatever follows `Connection: close`
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: Any) -> None:
        """Parse; after an offer, go on as if there had been none."""
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._connection.decline_offer(bytes(data[offer.args[0] :]))


class BoundedConnection(HttpToolsProtocol):
    """Mix in before a protocol: refuses what is too large, too slow or too much.

    The usual head arrives whole in one piece and costs nothing here but a few flags.
    """

    def __init__(
        self, *arguments: Any, door: Door, timeout_s: float, **given: Any
    ) -> None:
        super().__init__(*arguments, **given)
        self.parser = Parser(self)
        self._door = door
        self._timeout_s = timeout_s  # to send a head, and to read some of an answer
        self._timer: asyncio.TimerHandle | None = None  # of a head, or an unread body
        self._no_data_yet = True
        self._in_head = True
        self._in_body = False
        self._cut_short = False  # refused in the middle of a head
        self._refusal: Callable[[], None] | None = None  # waits for its turn
        self._crosses_boundary = False  # this chunk holds the end of a head or body
        self._overhead_bytes = 0  # bytes of the head, or around the chunks of the body
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head, but not for ever; or refuse, if it is too full."""
        super().connection_made(transport)
        self.outgoing = Outgoing(transport, self, self._door, timeout_s=self._timeout_s)
        self.transport = self.outgoing
        if self._door.admits(len(self.connections)):
            self._time_head()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, and what is still to be answered."""
        self._stop_timer()
        self.outgoing.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More of an answer is unread than the socket takes."""
        super().pause_writing()
        self.outgoing.time_reader()

    def resume_writing(self) -> None:
        """The client reads; one that is to be closed must read all."""
        if not self.transport.is_closing():
            self.outgoing.stop_timer()
        super().resume_writing()

    def eof_received(self) -> None:
        """The client sends no more, and the loop closes when all is written."""
        self.outgoing.time_reader()

    def shutdown(self) -> None:
        """Close what is idle; uvicorn waits a moment for it: `server.STOP_S`.

        A client that has just connected has sent its request, or is about to.
        """
        if self._no_data_yet:
            self._no_data_yet = False
            self.loop.call_later(LAST_S, self.shutdown)
            return
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(LAST_S, self.outgoing.abort)

    def is_receiving(self) -> bool:
        """Whether the client may be in the middle of sending something."""
        return self._in_body or self._cut_short or bool(self.pipeline)

    def awaits_head(self) -> bool:
        """Whether the next byte begins a request, and all before are answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        return self._no_data_yet or not (self._in_head or self._in_body)

    def pass_head(self) -> None:
        """A request came whole, and did without the parser."""
        self._no_data_yet = self._in_head = False
        self._overhead_bytes = 0
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        """Parse, then look at what did not become a whole head or a body."""
        if self._refusal is not None:
            return  # nothing that follows is read, as after any refusal
        self._crosses_boundary = self._no_data_yet = False
        known_bytes = self._body_bytes
        self._piece_bytes = len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._refusal is not None:
            return
        if not self._crosses_boundary:  # else its overhead cannot be attributed
            self._overhead_bytes += len(data) - (self._body_bytes - known_bytes)
        # honest chunks are larger than the lines between them
        allowed = MAX_HEAD_BYTES + self._body_bytes
        if self._overhead_bytes > allowed:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._in_head:
            self._time_head()
        elif self.cycle is not None and self.cycle.response_complete:
            self._time_idleness()

    def on_message_begin(self) -> None:
        """A new head begins."""
        if len(self.pipeline) >= MAX_AHEAD:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS)
            raise RefusedError
        self._in_head = True
        self._overhead_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete; from here on the body has bounds of its own."""
        # What of the head came in this piece is counted only when it is parsed.
        if self._overhead_bytes + self._piece_bytes > MAX_HEAD_BYTES:
            head_bytes = sum(len(name) + len(value) for name, value in self.headers)
            if len(self.url) + head_bytes > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                raise RefusedError
        offer = self.parser.should_upgrade()
        if not offer:
            self._check_headers()
            if self.expect_100_continue and self.parser.get_http_version() == "1.0":
                self.expect_100_continue = False  # RFC 9110, 10.1.1
            super().on_headers_complete()
            # Trailers go nowhere: among the headers (RFC 9110, 6.5.1, forbids it) they
            # would say how to read a body, if they came in one piece with it.
            self.headers = []
        # Not before: a target that cannot be read is refused as part of the head.
        self._in_head, self._in_body, self._crosses_boundary = False, True, True
        self._overhead_bytes = 0
        self._stop_timer()

    def on_body(self, body: bytes) -> None:
        """Count it."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete; or its head, with which an offer ends."""
        self._in_body, self._crosses_boundary = False, True
        self._stop_timer()
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request; after the last, with what was refused."""
        refusal = None if self.pipeline else self._refusal
        # nothing may follow an answer that has closed the connection
        if refusal is not None and not self.transport.is_closing():
            refusal()
        super().on_response_complete()

    def decline_offer(self, rest: bytes) -> None:
        """Read the request anew without its header `Upgrade`.

        Java's HttpClient and `curl --http2` offer HTTP/2 with every plain request, and
        a server may go on in HTTP/1.1 (RFC 9110, 7.8). The parser cannot: it takes what
        follows the head, and be it an image, for the other protocol.
        """
        kept = [header for header in self.headers if header[0] != b"upgrade"]
        if len(kept) == len(self.headers):  # CONNECT: this is no proxy
            self.send_400_response("Invalid HTTP request received.")
            return
        line = b"%b %b HTTP/%b" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        head = b"\r\n".join([line, *(b"%b: %b" % header for header in kept)])
        self.parser = Parser(self)
        self.parser.feed_data(head + b"\r\n\r\n" + rest)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a 400, unless it was refused already."""
        self._refuse_in_turn(partial(super().send_400_response, msg))

    def _check_headers(self) -> None:
        """HTTP/1.1 needs one `Host` (RFC 9112, 3.2): a proxy may read another.

        Of the transfer codings the parser undoes the last only, and looks at no other.
        """
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            self._refuse(HTTPStatus.BAD_REQUEST)
            raise RefusedError
        if CODING in names:
            values = (value for name, value in self.headers if name == CODING)
            codings = [
                coding.strip().lower() for coding in b",".join(values).split(b",")
            ]
            # the last one is another: the parser answers 400 (RFC 9112, 6.3)
            if codings[-1] == b"chunked" and len(codings) > 1:
                self._refuse(HTTPStatus.NOT_IMPLEMENTED)  # RFC 9112, 6.1
                raise RefusedError

    def _time_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(
                self._timeout_s, self._refuse, HTTPStatus.REQUEST_TIMEOUT
            )

    def _time_idleness(self) -> None:
        """Start the timers again that data has stopped which made no request."""
        if self._in_body:  # of a request that was answered at its head
            if self._timer is None:
                self._timer = self.loop.call_later(
                    self._timeout_s, self.timeout_keep_alive_handler
                )
        elif self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        """There is no request yet that a problem could belong to: a bare status."""
        self._refuse_in_turn(partial(self._end_with, status))

    def _refuse_in_turn(self, refusal: Callable[[], None]) -> None:
        """Refuse once all that was sent before is answered (RFC 9112, 9.3.2).

        A client takes the next answer for that of its oldest request.
        """
        if self.transport.is_closing() or self._refusal is not None:
            return
        self._stop_timer()
        self._cut_short = True
        if not self._in_body:  # the newest request came before
            waits = self.cycle is not None and not self.cycle.response_complete
        elif waits := bool(self.pipeline):  # it is the one that is refused
            self.pipeline.popleft()
        if waits:
            self._refusal = refusal
        else:
            refusal()

    def _end_with(self, status: HTTPStatus) -> None:
        full = status is HTTPStatus.SERVICE_UNAVAILABLE
        again = b"retry-after: 1\r\n" if full else b""
        self.transport.write(
            b"HTTP/1.1 %d %b\r\nconnection: close\r\ncontent-length: 0\r\n%b\r\n"
            % (status, status.phrase.encode(), again)
        )
        self.transport.close()
