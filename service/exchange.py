"""request ⇄ response: the **exchange**, as one log event, one id, one set of counters.

The request log is the only place that logs a request, and the border at which each
error becomes its problem. The middleware does both for every ASGI route.
"""

import itertools
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.contract import Timing
from service.errors import OverloadedError
from service.logs import Sparing
from service.metrics import Metrics
from service.problems import Problem, problem_of, response_of

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")

# nginx's number for a client that left; it is logged and counted, never sent.
CLIENT_GONE = 499
SERVER_ERROR = 500
UNSENT = 0

# Asked every second or two, so that their lines would hide all others.
PROBES = frozenset(
    ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
)

MAX_LOGGED_PATH = 200

SCOPE_KEY = "linnaeus"  # of the exchange, in the scope of ASGI

Headers = list[tuple[bytes, bytes]]

# Ends the connection, once the server has sent the answer it stands in.
CLOSE = (b"connection", b"close")


class State(Protocol):
    """The state of an application, as far as it matters here."""

    draining: bool


class ClientGoneError(Exception):
    """The client closed its connection, so nobody waits for the answer."""


@dataclass(slots=True)
class Exchange:
    """What is known of one request while it is served."""

    request_id: str
    method: str
    path: str
    started_s: float
    code: str = "ok"
    status: int = UNSENT
    held_bytes: int = 0  # of the body, until the answer is sent
    accepted: bool = False  # by the fast path, which then fell back to ASGI
    facts: dict[str, object] = field(default_factory=dict)  # for the log only

    def timed(self, timing: Timing) -> None:
        """Log where the time of an image went."""
        self.facts["queue_ms"] = round(timing.queue_ms + timing.batch_ms, 2)
        self.facts["infer_ms"] = round(timing.infer_ms, 2)
        self.facts["batch_size"] = timing.batch_size


class RequestLog:
    """Opens every exchange of a process, and logs and counts it when it closes."""

    def __init__(self, log: FilteringBoundLogger, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics
        # random for this process, then counted: no system call for each request
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._refusals = Sparing()  # a line of each takes longer than the refusal

    def open(self, method: str, path: str, headers: Headers) -> Exchange:
        """Begin to account for a request."""
        self._metrics.in_flight += 1
        return Exchange(self._request_id(headers), method, path, time.perf_counter())

    def forget(self) -> None:
        """An exchange was opened for nothing: another one accounts for its request."""
        self._metrics.in_flight -= 1

    def problem_for(self, exchange: Exchange, error: Exception) -> Problem:
        """The problem that this error is to the client of a request."""
        problem = self.problem(error, request_id=exchange.request_id)
        exchange.code = problem.code
        if problem.status > SERVER_ERROR:
            exchange.facts["error"] = f"{type(error).__name__}: {error}"
        return problem

    def problem(self, error: Exception, *, request_id: str) -> Problem:
        """The problem that this error is; what a 500 does not tell goes to the log."""
        problem = problem_of(error)
        if problem.status == SERVER_ERROR:
            self._log.error(
                "fault", request_id=request_id, code=problem.code, exc_info=error
            )
        return problem

    def close(self, exchange: Exchange, route: str) -> None:
        """Count and log what became of it."""
        elapsed_s = time.perf_counter() - exchange.started_s
        self._metrics.in_flight -= 1
        self._metrics.answered(route, exchange.status, exchange.code, elapsed_s)
        if exchange.code == OverloadedError.code:
            untold = self._refusals.untold()
            if untold is None:
                return
            if untold:
                exchange.facts["untold"] = untold
        self._write(exchange, route)(
            "request",
            request_id=exchange.request_id,
            method=exchange.method,
            path=exchange.path[:MAX_LOGGED_PATH],
            status=int(exchange.status),  # a terminal would show an enum's name
            code=exchange.code,
            elapsed_ms=round(elapsed_s * 1e3, 2),
            **exchange.facts,
        )

    def _write(self, exchange: Exchange, route: str) -> Callable[..., Any]:
        """At which level: a probe that says no is right, and no fault."""
        if route in PROBES and exchange.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return self._log.info
        if exchange.status >= SERVER_ERROR:
            return self._log.error
        return self._log.debug if route in PROBES else self._log.info

    def _request_id(self, headers: Headers) -> str:
        """The client's own `X-Request-ID` when it is harmless, else a new one."""
        for name, value in headers:
            if name == b"x-request-id":
                own = value.strip()  # the parser leaves spaces after it
                if REQUEST_ID.fullmatch(own):
                    return str(own, "ascii")
        return f"{self._prefix}{next(self._numbers):08x}"


def common_headers(exchange: Exchange) -> Headers:
    """The headers that every response has."""
    return [
        (b"x-request-id", exchange.request_id.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that the middleware opened for this request."""
    exchange: Exchange = scope[SCOPE_KEY]
    return exchange


class RequestMiddleware:
    """Wraps the application: request id, security headers, log event, metrics."""

    def __init__(self, app: ASGIApp, *, request_log: RequestLog, state: State) -> None:
        self._app = app
        self._request_log = request_log
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and account for it, however it ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # one that falls back from the fast path began there
        exchange = scope.get(SCOPE_KEY) or self._request_log.open(
            scope["method"], scope["path"], scope["headers"]
        )
        inner = {**scope, SCOPE_KEY: exchange}
        if scope["method"] == "HEAD":
            inner["method"] = "GET"  # the server leaves out the body (RFC 9110, 9.3.2)
        try:
            with_headers = _with_common_headers(send, exchange, self._state)
            await self._serve(inner, receive, with_headers)
        finally:
            # the router left its find there; a stranger's path is no label
            route = getattr(inner.get("route"), "path", "other")
            self._request_log.close(exchange, route)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application inside; whatever it raises becomes a problem."""
        exchange = exchange_of(scope)
        try:
            await self._app(scope, receive, send)
        except ClientGoneError:
            exchange.code, exchange.status = "client_gone", CLIENT_GONE
        except Exception as error:  # the border: a 500 never repeats its cause
            sent = exchange.code
            problem = self._request_log.problem_for(exchange, error)
            if exchange.status != UNSENT:
                exchange.code = sent
                raise  # half an answer went out; the server must cut the connection
            response = response_of(
                problem, path=exchange.path, request_id=exchange.request_id
            )
            await response(scope, receive, send)


def _with_common_headers(send: Send, exchange: Exchange, state: State) -> Send:
    """`send`, which adds to every response the headers that all have."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            headers = message["headers"]
            headers += common_headers(exchange)
            if state.draining and CLOSE not in headers:
                headers.append(CLOSE)
        await send(message)

    return send_with_headers
