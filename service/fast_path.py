"""request → **reply**, without ASGI: the fast path of a plain image.

What ASGI costs (task, scope, middleware, messages, a listener for the disconnect) is
0.2 ms of the event loop for a photo, and more than the whole work that a 28x28 PNG is.
`service/protocol.py` chooses which requests come here: `POST /classify` with a raw body
of declared length. Whatever it does not serve itself falls back to ASGI. It defines
nothing of its own: the question, the engine, the answer, the problem of an error and
the request log are those of the ASGI routes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

from classifier.errors import ClassifierError
from service.asking import LATE
from service.contract import Settle, Settled, Withdraw, outcome_of
from service.errors import DeadlineExceededError, ServiceError
from service.exchange import (
    CLIENT_GONE,
    CLOSE,
    Exchange,
    Headers,
    RequestLog,
    common_headers,
)
from service.heads import Head
from service.problems import headers_and_body
from service.responses import json_headers
from service.routes.question import Question, read_question
from service.serving import Serving

PATH = "/classify"


class Reply(NamedTuple):
    """A response that only needs to be written."""

    status: int
    headers: Headers
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return CLOSE in self.headers


class _NoTask:
    """In place of the event by which uvicorn wakes a task; there is no task here."""

    def set(self) -> None:
        """Do nothing."""


NO_TASK = _NoTask()


@dataclass(slots=True, eq=False)
class FastRequest:
    """One request on the fast path. Stands where uvicorn keeps its own cycle."""

    exchange: Exchange
    question: Question
    keep_alive: bool
    chunks: list[bytes] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None  # of the body, then the deadline
    withdraw: Withdraw | None = None
    # what uvicorn's protocol looks at, so that pipelined requests wait for this one
    response_complete: bool = False
    disconnected: bool = False
    message_event: _NoTask = NO_TASK

    def stop_timer(self) -> None:
        """Nothing is waited for any more, or something else."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


Answered = Callable[[FastRequest, Reply], None]


class FastPath:
    """The fast path of a process, which all its connections share."""

    def __init__(self, serving: Serving, request_log: RequestLog) -> None:
        self._serving = serving
        self._request_log = request_log
        self.max_bytes = serving.settings.max_body_bytes

    def open(self, head: Head) -> FastRequest | None:
        """Accept a request at its head; None: it falls back to ASGI."""
        exchange = self._request_log.open("POST", PATH, head.headers)
        try:
            question = read_question(head.query, self._serving, exchange)
            if not question.parameters.explain:
                self._serving.enter()
                return FastRequest(exchange, question, head.keep_alive)
        except (ClassifierError, ServiceError):
            pass  # ASGI will raise it again
        self._request_log.forget()
        return None

    def hold(self, request: FastRequest, chunk: bytes) -> bool:
        """Keep a piece of the body; False: the request falls back to ASGI."""
        request.chunks.append(chunk)
        try:
            self._serving.bodies.hold(
                len(chunk), request.exchange, limit=self.max_bytes
            )
        except ServiceError:  # ASGI will raise it again
            return False
        return True

    def forget(self, request: FastRequest) -> None:
        """The parser reads this request anew, from its first byte."""
        self._release(request)
        self._serving.leave()
        self._request_log.forget()

    def hand_over(self, request: FastRequest) -> Exchange:
        """ASGI takes it, and counts it out; it holds the body anew."""
        self._release(request)
        request.exchange.accepted = True
        return request.exchange

    def submit(self, request: FastRequest, answered: Answered) -> None:
        """The body is complete: run it; `answered` is called once, unless lost."""
        engine, deadline = self._serving.engine, self._serving.deadline()
        chunks = request.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()

        def settle(_: int, settled: Settled) -> None:
            if not request.response_complete:
                self._close(request, self._reply(request, settled), answered)

        try:
            request.withdraw = engine.submit(
                request.question.entry.key, (body,), deadline=deadline, settle=settle
            )
        except (ClassifierError, ServiceError) as error:
            settle(0, error)
        if request.withdraw is not None:
            loop = asyncio.get_running_loop()
            request.timer = loop.call_at(deadline, _expire, settle)

    def lose(self, request: FastRequest) -> None:
        """The client has left: withdraw what does not run yet."""
        exchange = request.exchange
        exchange.code, exchange.status = "client_gone", CLIENT_GONE
        self._end(request)

    def _reply(self, request: FastRequest, settled: Settled) -> Reply:
        """What an outcome, or any error, is to the client."""
        entry, exchange = request.question.entry, request.exchange
        try:
            outcome = outcome_of(settled)
            answer = entry.answer(
                outcome, request.question.parameters, request_id=exchange.request_id
            )
        except Exception as error:  # the border, as in service/exchange.py
            problem = self._request_log.problem_for(exchange, error)
            entry.metrics.failed(problem.code)
            headers, body = headers_and_body(
                problem, path=PATH, request_id=exchange.request_id
            )
            return Reply(problem.status, headers, body)
        exchange.timed(outcome.timing)
        headers = json_headers(answer, outcome.timing)
        return Reply(HTTPStatus.OK, headers, answer)

    def _close(self, request: FastRequest, reply: Reply, answered: Answered) -> None:
        reply.headers.extend(common_headers(request.exchange))
        closes = not request.keep_alive or self._serving.draining
        if closes and not reply.closes:
            reply.headers.append(CLOSE)
        request.exchange.status = reply.status
        self._end(request)
        answered(request, reply)

    def _end(self, request: FastRequest) -> None:
        request.response_complete = True
        if request.withdraw is not None:
            request.withdraw()
            # the connection keeps its last request, and `withdraw` holds the pixels
            request.withdraw = None
        self._release(request)
        self._serving.leave()
        self._request_log.close(request.exchange, PATH)

    def _release(self, request: FastRequest) -> None:
        request.stop_timer()
        self._serving.bodies.release(request.exchange)


def _expire(settle: Settle) -> None:
    settle(0, DeadlineExceededError(LATE))
