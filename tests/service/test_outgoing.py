"""Who does not read is cut off; who still sends hears its answer all the same."""

import asyncio
import http.client
import io
import json
import math
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from types import SimpleNamespace

import pytest
import uvicorn
from starlette.types import Send
from uvicorn.server import ServerState

from service import outgoing
from service.connection import MAX_AHEAD, BoundedConnection
from service.outgoing import Dropping, Outgoing
from tests.service.conftest import RED, running, until, wait_until

PAGE = b"GET /openapi.json HTTP/1.1\r\nHost: any\r\n\r\n"
LAST = b"GET /openapi.json HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK"
TYPE = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def impatient(settings_for) -> Iterator[SimpleNamespace]:
    """A server that waits for nobody longer than a second, and takes little."""
    settings = settings_for(
        body_timeout_ms=1_000,
        max_body_bytes=100_000,
        max_batch_body_bytes=1_000_000,
        max_buffered_bytes=1_000_000,
    )
    with running(settings) as server:
        yield server


def narrow(port: int) -> socket.socket:
    """A client that has hardly room for what it is sent."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    return client


def faults(server: SimpleNamespace) -> list[str]:
    """The errors of its log, but for answers."""
    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    errors = (line["event"] for line in lines if line["level"] == "error")
    return [event for event in errors if event != "request"]


@pytest.mark.parametrize("last", [PAGE, LAST], ids=["kept", "closed"])
def test_a_client_that_does_not_read_is_cut_off(impatient, last):
    """Five megabytes for it would be kept for as long as it likes, uncounted."""
    state = impatient.server.server_state
    with narrow(impatient.port) as client:
        client.sendall(PAGE * (MAX_AHEAD - 1) + last)
        wait_until(lambda: state.connections)
        wait_until(lambda: not state.connections)

        with pytest.raises(ConnectionResetError):  # the kernel, too, has dropped it
            client.makefile("rb").read()

    wait_until(lambda: not impatient.app.serving.metrics.in_flight)
    assert faults(impatient) == []


def test_a_client_that_reads_slowly_gets_all_of_its_answers(impatient):
    """It has as long for each piece, and not for the whole."""
    received, began_s = bytearray(), time.monotonic()
    with narrow(impatient.port) as client:
        client.sendall(PAGE * (MAX_AHEAD - 1) + LAST)
        while piece := client.recv(65536):
            received += piece
            ahead_s = len(received) / 4e6 - (time.monotonic() - began_s)  # of 4 MB/s
            time.sleep(max(0, ahead_s))

    assert received.count(ANSWER) == MAX_AHEAD
    assert received.endswith(b"}}}")


def test_a_client_that_reads_very_slowly_reads_all_the_same(impatient):
    """The kernel asks for more only when a large part of what it has is read, which at
    this pace takes longer than anybody may read nothing at all."""
    received, began_s = bytearray(), time.monotonic()
    with narrow(impatient.port) as client:
        client.sendall(PAGE * (MAX_AHEAD - 1) + LAST)
        while piece := client.recv(2_000):
            received += piece
            if time.monotonic() - began_s < 4:
                time.sleep(0.05)

    assert received.count(ANSWER) == MAX_AHEAD
    assert received.endswith(b"}}}")


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_client_that_sends_all_before_it_reads_hears_that_it_was_too_much(
    impatient, chunked
):
    """As Python's own does, and fetch in Node; a reset would say nothing."""
    body = io.BytesIO(bytes(30_000_000)) if chunked else bytes(30_000_000)
    client = http.client.HTTPConnection("127.0.0.1", impatient.port, timeout=20)
    client.request("POST", "/classify", body, TYPE)
    answer = client.getresponse()

    assert answer.status == 413
    assert b"body_too_large" in answer.read()


def test_a_refusal_before_the_body_is_heard_where_the_client_wants_to_close(impatient):
    """urllib asks for that with every request."""
    request = urllib.request.Request(  # noqa: S310
        f"{impatient.url}/classify?model=none", bytes(30_000_000), TYPE
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)  # noqa: S310

    assert refused.value.code == 404
    refused.value.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [(PAGE * 10_000, 429), (b"nonsense\r\n" * 100_000, 400)],
    ids=["ahead", "no HTTP"],
)
def test_a_bare_refusal_is_heard_by_who_still_sends(impatient, sent, status):
    """There is no request that it could read a problem of."""
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as client:
        client.sendall(sent)
        answers = client.makefile("rb").read()

    last = answers[answers.rindex(b"HTTP/1.1 ") :]
    assert last.startswith(b"HTTP/1.1 %d " % status)


def test_a_client_that_goes_on_sending_is_cut_off(impatient, monkeypatch):
    """It has heard its answer, and that it was the last, or never will."""
    monkeypatch.setattr(outgoing, "MAX_DROPPED_BYTES", 1_000_000)
    monkeypatch.setattr(outgoing, "MAX_PAUSE_S", 3600)
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as client:
        client.sendall(
            b"POST /classify HTTP/1.1\r\nHost: any\r\nContent-Length: 999999999\r\n\r\n"
        )
        answer = client.makefile("rb").read()
        with suppress(ConnectionError):
            while True:
                client.sendall(bytes(1000))

    assert answer.startswith(b"HTTP/1.1 413 ")
    wait_until(lambda: not impatient.server.server_state.connections)


def test_a_client_that_sends_nothing_more_is_not_waited_for(impatient, monkeypatch):
    """There is nothing to be dropped, so its connection is over at once."""
    monkeypatch.setattr(outgoing, "MAX_PAUSE_S", 3600)
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as client:
        client.sendall(LAST)
        answer = client.makefile("rb").read()
        wait_until(lambda: not impatient.server.server_state.connections)

    assert answer.startswith(ANSWER)


def test_while_the_service_stops_a_client_that_sends_hears_of_it(settings_for):
    """A draining answer says that another process may be asked; a reset does not."""
    with running(settings_for(drain_timeout_s=20)) as server:
        late = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        late.connect()
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
            slow.sendall(
                b"POST /classify HTTP/1.1\r\nHost: any\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n" % len(RED)
            )
            wait_until(lambda: server.app.serving.metrics.in_flight)
            server.server._loop.call_soon_threadsafe(server.server.drain)
            wait_until(lambda: server.app.serving.draining)
            late.request("POST", "/classify", bytes(8_000_000), TYPE)
            refused = late.getresponse()
            code = refused.read()
            slow.sendall(RED)
            answer = slow.makefile("rb").read()

    assert (refused.status, b'"draining"' in code) == (503, True)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert faults(server) == []


def test_the_end_does_not_wait_for_a_client_that_goes_on_sending(settings_for):
    """uvicorn would, and then log an error."""
    with running(settings_for(max_body_bytes=100)) as server:
        client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        client.sendall(
            b"POST /classify HTTP/1.1\r\nHost: any\r\nContent-Length: 999\r\n\r\n"
        )
        answer = client.makefile("rb").read()
    client.close()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert faults(server) == []


class Losing(asyncio.Protocol):
    """Tells that its connection has ended."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has."""
        self.lost.set()


@pytest.mark.parametrize("closed", [True, False])
async def test_what_is_left_of_a_small_answer_is_not_kept_for_ever(closed):
    """Nothing pauses for so little; nor does it help to have read once before."""
    loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection = SimpleNamespace(loop=loop, is_receiving=lambda: False)
    transport, protocol = await loop.create_connection(Losing, sock=ours)
    out = Outgoing(transport, connection, None, timeout_s=0.01)
    with theirs, closing(transport):
        out.write(bytes(60_000))
        assert transport.get_write_buffer_size() > 0
        if closed:
            out.close()
        else:
            out.time_reader()
            out.stop_timer()
            out.time_reader()
        async with asyncio.timeout(10):
            await protocol.lost.wait()


@asynccontextmanager
async def answered(
    size: int, *, closes: bool, timeout_s: float
) -> AsyncIterator[tuple[BoundedConnection, socket.socket]]:
    """A connection of asyncio's loop, as on Windows, that has had so large an answer.

    The client has read none of it, and the kernel holds next to nothing.
    """

    async def app(_: object, __: object, send: Send) -> None:
        headers = [(b"content-length", b"%d" % size)]
        headers += [(b"connection", b"close")] if closes else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    config.load()
    loop, state = asyncio.get_running_loop(), ServerState()
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with theirs:
        theirs.setblocking(False)
        transport, connection = await loop.connect_accepted_socket(
            lambda: BoundedConnection(
                config=config,
                server_state=state,
                app_state={},
                door=SimpleNamespace(admits=lambda _: True),
                timeout_s=timeout_s,
            ),
            ours,
        )
        await loop.sock_sendall(theirs, LAST if closes else PAGE)
        await until(lambda: connection.cycle and connection.cycle.response_complete)
        with closing(transport):
            yield connection, theirs


def unread(connection: BoundedConnection) -> int:
    """Bytes of the answer that the kernel has not taken."""
    return connection.outgoing._transport.get_write_buffer_size()


async def test_a_client_that_reads_only_a_part_of_the_last_answer_is_cut_off():
    """What is left is too little to pause for, and nothing else would look again."""
    async with answered(100_000, closes=True, timeout_s=0.05) as (connection, client):
        while unread(connection) > 12_000:
            with suppress(BlockingIOError):
                client.recv(2000)
            await asyncio.sleep(0)
        await until(lambda: not connection.connections)


async def test_a_client_that_sends_no_more_and_does_not_read_is_cut_off():
    """The loop closes such a connection when all is written, whenever that may be."""
    async with answered(30_000, closes=False, timeout_s=0.05) as (connection, client):
        client.shutdown(socket.SHUT_WR)
        await until(lambda: not connection.connections)


async def test_at_the_end_nobody_is_waited_for_who_has_not_read_an_answer():
    """For as long as a client may take otherwise, the process would not end."""
    async with answered(30_000, closes=False, timeout_s=3600) as (connection, _):
        connection.shutdown()
        await until(lambda: not connection.connections)


@pytest.mark.parametrize("over", [Outgoing.stop_timer, Outgoing.end])
async def test_an_answer_that_was_read_leaves_no_timer_behind(over):
    """It would compare the next answer with what was unread of this one."""
    loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
    timers = []

    def call_later(*arguments):
        timers.append(loop.call_later(*arguments))
        return timers[-1]

    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection = SimpleNamespace(loop=SimpleNamespace(call_later=call_later))
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    out = Outgoing(transport, connection, None, timeout_s=3600)
    with theirs, closing(transport):
        out.write(bytes(60_000))
        out.time_reader()
        over(out)
        transport.abort()

    assert [timer.cancelled() for timer in timers] == [True]


async def hear_out(sent: bytes, *, ends_s: float = math.inf) -> set[object]:
    """Drop what a client sends that does not end, and if that has an end also does not
    pause; the connections left."""
    loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
    connection = SimpleNamespace(loop=loop, connections=set())
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    transport.set_protocol(Dropping(transport, connection, ends_s=ends_s))
    with theirs, closing(transport):
        theirs.sendall(sent)
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(2):
                while connection.connections:
                    if ends_s < math.inf:
                        theirs.send(b"x")
                    await asyncio.sleep(0.005)
        return set(connection.connections)


async def test_a_client_that_sends_far_too_much_is_cut_off_at_once(monkeypatch):
    """However much time it would have."""
    monkeypatch.setattr(outgoing, "MAX_DROPPED_BYTES", 1000)
    monkeypatch.setattr(outgoing, "MAX_PAUSE_S", 3600)

    assert await hear_out(bytes(1001)) == set()


async def test_a_client_that_neither_goes_on_nor_ends_is_cut_off(monkeypatch):
    """It has read its answer long ago, or never will."""
    monkeypatch.setattr(outgoing, "MAX_PAUSE_S", 0.01)

    assert await hear_out(bytes(1001)) == set()


async def test_a_client_that_goes_on_for_longer_than_it_may_is_cut_off(monkeypatch):
    """However little it sends."""
    monkeypatch.setattr(outgoing, "MAX_PAUSE_S", 0.1)
    soon = asyncio.get_running_loop().time() + 0.2

    assert await hear_out(b"x", ends_s=soon) == set()
