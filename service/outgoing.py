"""answer → **socket**, bounded in time, and received also by a client that still sends.

A transport that is closed waits until all is written: for ever, if nobody reads. And a
socket that is closed with unread bytes in it is reset, so that a client that sends all
and then reads finds a broken connection in place of its 413. There only the one
direction is closed, and what still comes in the other is dropped (RFC 9112, 9.6).
"""

import array
import asyncio
import math
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, Protocol

from service.door import Door

# A client that has read its answer closes; one that has not yet goes on sending.
MAX_PAUSE_S = 2.0
# As much as the largest body may have, by default.
MAX_DROPPED_BYTES = 64 * 1024 * 1024
# For connections still closing when the process ends; less than STOP_S of the server.
LAST_S = 0.5

# struct linger: on, 0 s.
RESET = struct.pack("ii", 1, 0)


class Connection(Protocol):
    """The protocol of the connection, as far as it matters here."""

    loop: asyncio.AbstractEventLoop
    connections: set[Any]  # of uvicorn

    def is_receiving(self) -> bool:
        """Whether its client may be in the middle of sending something."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""


class Outgoing(asyncio.Transport):
    """The transport of a connection, with an end to it. Costs nothing before."""

    def __init__(
        self,
        transport: asyncio.Transport,
        connection: Connection,
        door: Door,
        *,
        timeout_s: float,
    ) -> None:
        super().__init__()
        self._transport = transport
        self._connection = connection
        self._door = door
        self._timeout_s = timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self.write = transport.write  # type: ignore[method-assign]  # no call between
        self.is_closing = transport.is_closing  # type: ignore[method-assign]

    def close(self) -> None:
        """Close when all is written, and the client has been given time to stop."""
        if self.is_closing():
            return
        if self._connection.is_receiving() and self._door.hears_out(
            len(self._connection.connections)
        ):
            self._hear_out()
        else:
            self._transport.close()
            self.time_reader()

    def abort(self) -> None:
        """Close now, whatever is not written."""
        self._transport.abort()

    def time_reader(self) -> None:
        """From here on, while anything is unread, some of it must be read in time."""
        if self._timer is None:
            self._look()

    def end(self) -> None:
        """The client is gone: drop what a request that still runs writes."""
        self.stop_timer()
        self.write = _drop  # type: ignore[method-assign, assignment]
        self.is_closing = _yes  # type: ignore[method-assign]

    def stop_timer(self) -> None:
        """All is written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, unread_before: float = math.inf) -> None:
        self._timer = None
        unread = self._transport.get_write_buffer_size()
        connected = self._transport.get_extra_info("socket")
        if unread:
            unread += held_by_kernel(connected)
        if unread >= unread_before:
            # also drops what the kernel has not sent yet, which may be megabytes
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.abort()
        elif unread:
            self._timer = self._connection.loop.call_later(
                self._timeout_s, self._look, unread
            )

    def _hear_out(self) -> None:
        """End the connection; `Dropping` has its socket until the client ends."""
        self.end()
        ends_s = self._connection.loop.time() + self._timeout_s
        self._transport.set_protocol(
            Dropping(self._transport, self._connection, ends_s=ends_s)
        )
        self._transport.write_eof()
        self._transport.resume_reading()
        self._connection.loop.call_soon(self._connection.connection_lost, None)


class Dropping(asyncio.Protocol):
    """Drops what a client sends after its answer, within bounds.

    Such a connection holds nothing but its socket. It stands among those of uvicorn,
    which waits for them at the end of the process.
    """

    _timer: asyncio.TimerHandle

    def __init__(
        self, transport: asyncio.Transport, connection: Connection, *, ends_s: float
    ) -> None:
        self._transport = transport
        self._loop, self._connections = connection.loop, connection.connections
        self._ends_s = ends_s
        self._dropped_bytes = 0
        self._connections.add(self)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Count and drop it."""
        self._dropped_bytes += len(data)
        if self._dropped_bytes > MAX_DROPPED_BYTES:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has closed, or was cut off."""
        self._timer.cancel()
        self._connections.discard(self)

    def shutdown(self) -> None:
        """The process is about to end."""
        self._timer.cancel()
        self._timer = self._loop.call_later(LAST_S, self._transport.abort)

    def _look(self, dropped_before: int = -1) -> None:
        if self._dropped_bytes == dropped_before or self._loop.time() > self._ends_s:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(
                MAX_PAUSE_S, self._look, self._dropped_bytes
            )


def held_by_kernel(connected: socket.socket) -> int:
    """Bytes that it has taken and the client has not, where it tells: megabytes, of
    which it passes on nothing until a large part of them is read.
    """
    if sys.platform == "win32":
        return 0
    import fcntl  # noqa: PLC0415 - neither is there on Windows
    import termios  # noqa: PLC0415

    held = array.array("i", [0])
    with suppress(OSError):  # macOS tells it of terminals alone
        fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, held)
    return held[0]


def _drop(_: object) -> None:
    """The `write` of a connection that has ended."""


def _yes() -> bool:
    return True
