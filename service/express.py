"""request → **reply**, without ASGI: the short way of a plain image.

What ASGI costs (task, scope, middleware, messages, a listener for the disconnect) is a
sixth of the work that a photo is on two cores, and more than the whole work that a
28x28 PNG is. `service/protocol.py` chooses which requests come here: `POST /classify`
with a raw body of declared length. Nothing is defined here: the question, the engine,
the answer, the problem of an error and the ledger are those of the ordinary way.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from classifier.errors import ClassifierError
from service.asking import LATE
from service.contract import Outcome, Settle, Settled, Withdraw
from service.errors import DeadlineExceededError, ServiceError
from service.exchange import CLIENT_GONE, Exchange, Headers, Ledger, signature
from service.problems import headers_and_body
from service.routes.classify import json_headers
from service.routes.question import Question, read_question
from service.serving import Serving

PATH = "/classify"


@dataclass(frozen=True, slots=True)
class Reply:
    """A response that only needs to be written."""

    status: int
    headers: Headers
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return (b"connection", b"close") in self.headers


class _Nobody:
    """Where uvicorn wakes its task; here is none."""

    def set(self) -> None:
        """Wake nobody."""


NOBODY = _Nobody()


@dataclass(slots=True, eq=False)
class Parcel:
    """One request on the short way. Stands where uvicorn keeps its own cycle."""

    exchange: Exchange
    question: Question
    keep_alive: bool
    chunks: list[bytes] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None  # patience, then the deadline
    withdraw: Withdraw | None = None
    # what uvicorn's protocol looks at, so that pipelined requests wait for this one
    response_complete: bool = False
    disconnected: bool = False
    message_event: _Nobody = NOBODY

    def stop_timer(self) -> None:
        """Nothing is waited for any more, or something else."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


Answered = Callable[[Parcel, Reply], None]


class Express:
    """What all connections share."""

    def __init__(self, serving: Serving, ledger: Ledger) -> None:
        self._serving = serving
        self._ledger = ledger
        self.max_bytes = serving.settings.max_body_bytes

    def open(
        self, query: bytes, headers: Headers, *, keep_alive: bool
    ) -> Parcel | None:
        """Accept a request at its head; None sends it the ordinary way."""
        exchange = self._ledger.open("POST", PATH, headers)
        try:
            question = read_question(query, self._serving, exchange)
            if not question.parameters.explain:
                self._serving.enter()
                return Parcel(exchange, question, keep_alive)
        except (ClassifierError, ServiceError):
            pass  # raised there again
        self._ledger.forget()
        return None

    def hold(self, parcel: Parcel, chunk: bytes) -> bool:
        """Keep a piece of the body; False sends the request the ordinary way."""
        parcel.chunks.append(chunk)
        try:
            self._serving.bodies.hold(len(chunk), parcel.exchange, limit=self.max_bytes)
        except ServiceError:  # raised there again
            return False
        return True

    def forget(self, parcel: Parcel) -> None:
        """The ordinary way takes this request, from its start."""
        self._release(parcel)
        self._ledger.forget()

    def submit(self, parcel: Parcel, answered: Answered) -> None:
        """The body is complete: run it; `answered` is called once, unless lost."""
        engine, deadline = self._serving.engine, self._serving.deadline()
        chunks = parcel.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()

        def settle(_: int, settled: Settled) -> None:
            if not parcel.response_complete:
                self._close(parcel, self._reply(parcel, settled), answered)

        try:
            parcel.withdraw = engine.submit(
                parcel.question.entry.key, (body,), deadline=deadline, settle=settle
            )
        except (ClassifierError, ServiceError) as error:
            settle(0, error)
        if parcel.withdraw is not None:
            loop = asyncio.get_running_loop()
            parcel.timer = loop.call_at(deadline, _expire, settle)

    def lose(self, parcel: Parcel) -> None:
        """The client has left: run nothing for nobody."""
        exchange = parcel.exchange
        exchange.code, exchange.status = "client_gone", CLIENT_GONE
        self._end(parcel)

    def _reply(self, parcel: Parcel, settled: Settled) -> Reply:
        """What an outcome, or any error, is to the client."""
        entry, exchange = parcel.question.entry, parcel.exchange
        try:
            if not isinstance(settled, Outcome):
                raise settled
            answer = entry.answer(
                settled, parcel.question.parameters, request_id=exchange.request_id
            )
        except Exception as error:  # the border, as in service/exchange.py
            problem = self._ledger.blame(exchange, error)
            entry.metrics.failed(problem.code)
            headers, body = headers_and_body(
                problem, path=PATH, request_id=exchange.request_id
            )
            return Reply(problem.status, headers, body)
        exchange.timed(settled.timing)
        headers = json_headers(answer, settled.timing)
        return Reply(HTTPStatus.OK, headers, answer)

    def _close(self, parcel: Parcel, reply: Reply, answered: Answered) -> None:
        reply.headers.extend(signature(parcel.exchange))
        if not parcel.keep_alive and not reply.closes:
            reply.headers.append((b"connection", b"close"))
        parcel.exchange.status = int(reply.status)
        self._end(parcel)
        answered(parcel, reply)

    def _end(self, parcel: Parcel) -> None:
        parcel.response_complete = True
        if parcel.withdraw is not None:
            parcel.withdraw()
            # the connection keeps its last parcel, and this holds on to the pixels
            parcel.withdraw = None
        self._release(parcel)
        self._ledger.close(parcel.exchange, PATH)

    def _release(self, parcel: Parcel) -> None:
        parcel.stop_timer()
        self._serving.bodies.release(parcel.exchange)
        self._serving.leave()


def _expire(settle: Settle) -> None:
    settle(0, DeadlineExceededError(LATE))
