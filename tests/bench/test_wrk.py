"""What wrk counts, against a server that lets nobody be quicker than it is."""

import asyncio

import pytest

from bench import wrk
from bench.bodies import raw
from bench.client import Target
from tests.bench.test_records import wrk_output
from tests.bench.tiny_server import response

TAKES_S, CONNECTIONS = 0.1, 32
MANY = 4000  # files that each thread reads before it begins

needs_wrk = pytest.mark.skipif(
    wrk.shutil.which("wrk") is None, reason="wrk is not installed"
)


async def answer_slowly(reader, writer):
    """One connection: each request takes its time, however many there are."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.split("Content-Length: ")[1].split("\r\n")[0])
            await reader.readexactly(length)
            await asyncio.sleep(TAKES_S)
            writer.write(response(200))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


@needs_wrk
async def test_what_is_answered_before_the_clock_starts_is_no_throughput():
    """wrk begins with some connections while others still read their images."""
    server = await asyncio.start_server(answer_slowly, "127.0.0.1", 0)
    target = Target(*server.sockets[0].getsockname()[:2])
    bodies = [raw(b"%d" % number) for number in range(MANY)]

    async with server:
        closed = await asyncio.to_thread(
            wrk.saturate, bodies, target, connections=CONNECTIONS, seconds=1
        )

    # each connection may end one request of before in the first tenth of a second
    assert closed.requests_per_s <= 1.1 * CONNECTIONS / TAKES_S
    assert closed.failed == 0


def test_early_requests_are_not_counted_over_the_duration():
    """Of a thousand, two hundred were refused, and a tenth came too early."""
    closed = wrk.read_report(wrk_output(early=100), images=1)

    assert closed.requests_per_s == pytest.approx(0.9 * 400)
