"""request bytes → **response**: an HTTP client too small to be what is measured.

A library client spends several hundred microseconds a request, more than the service
does. This one writes bytes built beforehand and reads only what a measurement needs:
status, Content-Length, Retry-After and the body. Keep-alive, no redirects, no
compression, no chunked answers (it says so when it meets one), loopback only.
"""

import asyncio
import contextlib
import ipaddress
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from bench.ending import MeasurementError

MAX_HEADER_BYTES = 64 * 1024


class ConnectionBrokenError(MeasurementError):
    """The server closed the connection before a whole answer."""


class ResponseError(Exception):
    """The server sent something that this client does not read."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go; only this machine, so that a load cannot hit anybody else."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> "Target":
        """Read `http://127.0.0.1:PORT`."""
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise MeasurementError(f"url is {url!r}; http://HOST:PORT is needed")
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
        if not _is_loopback(host):
            raise MeasurementError(f"{host} is not this machine; loads go nowhere else")
        return cls(host, parts.port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


@dataclass(frozen=True, slots=True)
class Response:
    """What a measurement needs of an answer."""

    status: int
    retry_after_s: float | None
    body: bytes


def build_request(path: str, *, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("ascii") + body


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self, on_lost: Callable[["Connection"], None]) -> None:
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._needed: int | None = None  # bytes of header and body, once known
        self._head: tuple[int, float | None, int] = (0, None, 0)
        self._answer: asyncio.Future[Response] | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # cast: uvloop's transports do what asyncio.Transport says without being one
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop; the request in flight is broken."""
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionBrokenError(str(exc or "closed")))
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._received += data
        try:
            if self._needed is None:
                self._read_head()
        except ResponseError as error:
            self._fail(error)
            return
        if self._needed is not None and len(self._received) >= self._needed:
            self._finish(self._needed)

    def _read_head(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if len(self._received) > MAX_HEADER_BYTES:
                raise ResponseError("header is longer than 64 KiB")
            return
        status, length, retry_after_s = parse_head(bytes(self._received[:end]))
        self._head = (status, retry_after_s, end + 4)
        self._needed = end + 4 + length

    def _finish(self, needed: int) -> None:
        status, retry_after_s, body_at = self._head
        body = bytes(self._received[body_at:needed])
        del self._received[:needed]
        self._needed = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Response(status, retry_after_s, body))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()

    async def send(self, request: bytes) -> Response:
        """Send and await the whole answer; ConnectionBrokenError when there is none."""
        if not self.open or self._transport is None:
            raise ConnectionBrokenError("connection is not open")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close at once; an unfinished request is given up."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()


def parse_head(head: bytes) -> tuple[int, int, float | None]:
    """Status, body length and Retry-After seconds of a response head."""
    lines = head.split(b"\r\n")
    try:
        status = int(lines[0].split(b" ", 2)[1])
    except (IndexError, ValueError) as error:
        raise ResponseError(f"status line is {lines[0]!r}") from error
    length: int | None = None
    retry_after_s: float | None = None
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"content-length":
                length = int(value)
            case b"retry-after":
                retry_after_s = float(value)
            case b"transfer-encoding":
                raise ResponseError("chunked answers are not read by this client")
    if length is None:
        raise ResponseError("the answer has no Content-Length")
    return status, length, retry_after_s


class Pool:
    """Idle connections to one target; opens more up to a bound, then senders wait."""

    def __init__(self, target: Target, *, connections: int) -> None:
        self._target = target
        self._idle: deque[Connection] = deque()
        self._opened: set[Connection] = set()
        self._none_open = asyncio.Event()
        self._free = asyncio.Semaphore(connections)

    async def send(self, request: bytes) -> Response:
        """Send on an idle connection, or a new one; waits when all are in use."""
        async with self.connection() as connection:
            return await connection.send(request)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One for a request, which afterwards others have; waits when all are in use.

        One that breaks, or is left with an answer to come, is closed.
        """
        async with self._free:
            connection = await self._connection()
            try:
                yield connection
            except BaseException:  # also cancelled: a late answer must not be read
                connection.close()
                raise
            self._idle.append(connection)

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return await self._open()

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self._lost), self._target.host, self._target.port
            )
        except OSError as error:
            raise ConnectionBrokenError(str(error)) from error
        self._opened.add(connection)
        return connection

    def _lost(self, connection: Connection) -> None:
        self._opened.discard(connection)
        if not self._opened:
            self._none_open.set()

    async def warm(self, connections: int) -> None:
        """Open connections ahead of a load: their opening is not to be measured."""
        for _ in range(connections):
            self._idle.append(await self._open())

    async def close(self) -> None:
        """Close every connection, and wait until they are."""
        self._none_open.clear()
        for connection in tuple(self._opened):
            connection.close()
        if self._opened:
            await self._none_open.wait()
