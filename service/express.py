"""socket → **answer**, without ASGI: the short way for tiny images.

What a small network needs (60 µs to decode and run a 28x28 PNG) is less than what an
ASGI request costs (task, scope, middleware, messages: 150 µs). A request that is as
simple as can be (`POST /classify`, a small raw body, a model that runs on the event
loop) is answered straight from the parser's callbacks. Every other request, and every
one of these that does not end in a plain answer, goes the ordinary way, from the start:
there is one definition of each error, and it is not here.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from structlog.typing import FilteringBoundLogger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from classifier.errors import ClassifierError
from service.catalog import Served
from service.contract import Outcome
from service.engine.inline import MAX_BYTES, InlineLane
from service.engine.ticket import Settled
from service.errors import ServiceError
from service.exchange import REQUEST_ID
from service.parameters import Parameters, read_parameters
from service.routes.classify import server_timing
from service.serving import Serving

PATH = b"/classify"
RAW_TYPES = (b"image/", b"application/octet-stream")
# A body that takes longer to come goes the ordinary way, where it is timed.
PATIENCE_S = 1.0
# A request with any other header goes the ordinary way, where it is read.
HARMLESS_HEADERS = frozenset(
    (b"host", b"user-agent", b"accept", b"accept-encoding", b"connection", b"priority")
)


@dataclass(slots=True)
class Parcel:
    """One request on the short way."""

    began_s: float
    request_id: str | None
    keep_alive: bool
    body: bytes = b""
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class Express:
    """What all connections share."""

    serving: Serving
    lane: Callable[[], InlineLane | None]  # there is one once the engine has started
    log: FilteringBoundLogger
    prefix: str = field(default_factory=lambda: secrets.token_hex(4))
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new_request_id(self) -> str:
        """Random for this process, then counted: no system call for each request."""
        return f"{self.prefix}{next(self.count):08x}"

    def submit(
        self, query: bytes, body: bytes, answered: Callable[["Reply | None"], None]
    ) -> bool:
        """Take a request; False, or a reply of None, sends it the ordinary way."""
        lane, serving = self.lane(), self.serving
        if lane is None or serving.draining or serving.engine.unready() is not None:
            return False
        try:
            parameters = read_parameters(query)
            served = serving.catalog.find(parameters.model, parameters.version)
            if parameters.explain or not lane.serves(served.key):
                return False
            served.check(parameters)

            def settle(settled: Settled) -> None:
                if isinstance(settled, Outcome):
                    answered(Reply(served, parameters, settled))
                else:
                    answered(None)

            return lane.submit(served.key, body, settle)
        except (ClassifierError, ServiceError):
            return False

    def account(self, parcel: Parcel, request_id: str, reply: "Reply") -> None:
        """The log line and the counts of one answer, as the ordinary way has them."""
        elapsed_s = time.perf_counter() - parcel.began_s
        self.serving.metrics.answered(PATH.decode(), 200, "ok", elapsed_s)
        timing, (name, version) = reply.outcome.timing, reply.served.key
        self.log.info(
            "request",
            request_id=request_id,
            method="POST",
            path=PATH.decode(),
            status=200,
            code="ok",
            elapsed_ms=round(elapsed_s * 1e3, 2),
            model=name,
            version=version,
            queue_ms=round(timing.queue_ms + timing.batch_ms, 2),
            infer_ms=round(timing.infer_ms, 2),
            batch_size=timing.batch_size,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """An outcome, and how it was asked for."""

    served: Served
    parameters: Parameters
    outcome: Outcome


class ExpressProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a short way through it."""

    def __init__(self, express: Express, **given: Any) -> None:
        super().__init__(**given)
        self._express = express
        self._parcel: Parcel | None = None  # being received
        self._waiting: Parcel | None = None  # received, not answered

    def data_received(self, data: bytes) -> None:
        """Parse; a body that is slow to come is waited for by a timer."""
        super().data_received(data)
        parcel = self._parcel
        if parcel is not None and parcel.timer is None:
            parcel.timer = self.loop.call_later(PATIENCE_S, self._lose_patience, parcel)

    def on_headers_complete(self) -> None:
        """Choose the way of this request."""
        if self._waiting is not None:  # a client that pipelines: answers keep order
            self._flush()
        if self._is_simple():
            self._parcel = Parcel(
                time.perf_counter(), self._request_id(), self.parser.should_keep_alive()
            )
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep the body; it is at most `MAX_BYTES`, for so its length was declared."""
        if self._parcel is None:
            super().on_body(body)
        else:
            self._parcel.body += body

    def on_message_complete(self) -> None:
        """Serve the request, or send it the ordinary way from its start."""
        parcel, self._parcel = self._parcel, None
        if parcel is None:
            super().on_message_complete()
            return
        if parcel.timer is not None:
            parcel.timer.cancel()
        self._waiting = parcel
        query = self.url[len(PATH) + 1 :]
        if not self._express.submit(query, parcel.body, self._answered):
            self._go_the_ordinary_way()

    def shutdown(self) -> None:
        """Answer what waits, then close."""
        if self._waiting is not None:
            self._flush()
        super().shutdown()

    def _flush(self) -> None:
        lane = self._express.lane()
        if lane is not None:
            lane.flush()

    def _is_simple(self) -> bool:
        url = self.url
        if not url.startswith(PATH) or url[len(PATH) : len(PATH) + 1] not in (
            b"",
            b"?",
        ):
            return False
        busy = self.cycle is not None and not self.cycle.response_complete
        if self.parser.get_method() != b"POST" or busy or self.expect_100_continue:
            return False
        if self.parser.get_http_version() != "1.1" or self.parser.should_upgrade():
            return False
        return self._has_simple_headers()

    def _has_simple_headers(self) -> bool:
        length = 0
        for name, value in self.headers:
            match name:
                case b"content-length":
                    # digits, or the parser had refused it
                    length = int(value)
                case b"content-type":
                    if not value.startswith(RAW_TYPES):
                        return False
                case b"x-request-id":
                    if not REQUEST_ID.fullmatch(value):
                        return False
                case _:
                    if name not in HARMLESS_HEADERS:
                        return False
        return 0 < length <= MAX_BYTES

    def _request_id(self) -> str | None:
        for name, value in self.headers:
            if name == b"x-request-id":
                return value.decode("ascii")
        return None

    def _go_the_ordinary_way(self) -> None:
        parcel, self._waiting = self._waiting, None
        if parcel is None or self.transport.is_closing():
            return
        super().on_headers_complete()
        super().on_body(parcel.body)
        super().on_message_complete()

    def _lose_patience(self, parcel: Parcel) -> None:
        if self._parcel is not parcel or self.transport.is_closing():
            return
        self._parcel = None
        super().on_headers_complete()
        if parcel.body:
            super().on_body(parcel.body)

    def _answered(self, reply: Reply | None) -> None:
        if reply is None:
            self._go_the_ordinary_way()
            return
        parcel, self._waiting = self._waiting, None
        if parcel is None or self.transport.is_closing():
            return  # the client has left
        request_id = parcel.request_id or self._express.new_request_id()
        answer = reply.served.answer(
            reply.outcome, reply.parameters, request_id=request_id
        )
        self.transport.write(self._response(answer, reply.outcome, parcel, request_id))
        self._express.account(parcel, request_id, reply)
        if not parcel.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _response(
        self, answer: bytes, outcome: Outcome, parcel: Parcel, request_id: str
    ) -> bytes:
        default = b"".join(
            b"%b: %b\r\n" % header for header in self.server_state.default_headers
        )
        return (
            b"HTTP/1.1 200 OK\r\n%bcontent-type: application/json\r\n"
            b"content-length: %d\r\nserver-timing: %b\r\nx-request-id: %b\r\n"
            b"x-content-type-options: nosniff\r\n%b\r\n%b"
            % (
                default,
                len(answer),
                server_timing(outcome.timing),
                request_id.encode(),
                b"" if parcel.keep_alive else b"connection: close\r\n",
                answer,
            )
        )
