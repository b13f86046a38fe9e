"""A tiny HTTP server on a free port, whose answers a test decides byte by byte."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from bench.client import Target

Answer = Callable[[bytes], bytes]  # request body → whole response


def response(status: int, *headers: str, body: bytes = b"{}") -> bytes:
    """A whole answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} Some", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class TinyServer:
    """Counts connections, keeps every body, answers what it is told to."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.bodies: list[bytes] = []
        self.connections = 0
        self._open: set[asyncio.Task[None]] = set()

    async def closed(self) -> None:
        """Wait until every connection has ended."""
        await asyncio.gather(*self._open)

    def connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Called for each connection."""
        task = asyncio.create_task(self.serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection: requests until it closes.

        An empty answer closes it, and so does an answer to the body `b"last"`.
        """
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.split("Content-Length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                self.bodies.append(body)
                answer = self._answer(body)
                for at in range(0, len(answer), 20):  # in pieces, as networks deliver
                    writer.write(answer[at : at + 20])
                    await writer.drain()
                if not answer or body == b"last":
                    break
        writer.close()


@contextlib.asynccontextmanager
async def tiny_server(answer: Answer) -> AsyncIterator[tuple[Target, TinyServer]]:
    """Serve in this event loop."""
    tiny = TinyServer(answer)
    server = await asyncio.start_server(tiny.connect, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with server:
        yield Target(host, port), tiny
        await tiny.closed()
