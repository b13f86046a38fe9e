"""What all routes share: a drain says so, and ends with the last request."""

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest

from service.metrics import Metrics
from service.serving import Serving
from service.settings import Settings
from tests.service.conftest import RED, running
from tests.service.test_limits import wait_until


@pytest.fixture
def serving() -> Serving:
    """Of an engine that is ready."""
    return Serving(Settings(), SimpleNamespace(unready=lambda: None), Metrics())


async def test_a_drain_waits_for_the_request_at_work_though_all_was_idle_before(
    serving,
):
    """Every service has answered its last request for now many times a day."""
    with serving:
        pass
    serving.enter()
    drain = asyncio.create_task(serving.drain(notice_s=0, timeout_s=20))
    for _ in range(10):
        await asyncio.sleep(0)
    ended_early = drain.done()
    serving.leave()

    assert await drain
    assert not ended_early


@pytest.fixture(scope="module")
def noticing(settings_for) -> Iterator[SimpleNamespace]:
    """A server that drains, and still takes images for so long."""
    with running(settings_for(drain_notice_s=3600)) as server:
        kept = server.client.post("/classify", content=RED)
        assert "Connection" not in kept.headers
        server.server._loop.call_soon_threadsafe(server.server.drain)
        wait_until(lambda: server.app.serving.draining)
        yield server


@pytest.mark.parametrize(
    ("status", "method", "path", "body"),
    [
        (200, "POST", "/classify", {"content": RED}),  # the fast path
        (422, "POST", "/classify?top_k=0", {"content": RED}),
        (200, "POST", "/classify", {"files": {"file": RED}}),
        (200, "POST", "/classify/batch", {"files": {"files": RED}}),
        (503, "GET", "/readyz", {}),
        (200, "HEAD", "/livez", {}),
        (200, "GET", "/metrics", {}),
        (200, "GET", "/v2/models/colors", {}),
        (404, "GET", "/nowhere", {}),
    ],
)
def test_an_answer_during_the_notice_ends_its_connection(
    noticing, status, method, path, body
):
    """A client comes to another process before this one has no answers any more."""
    request = httpx.Request(method, f"{noticing.url}{path}", **body)
    headers = b"".join(b"%b: %b\r\n" % header for header in request.headers.raw)
    head = f"{method} {path} HTTP/1.1\r\n".encode() + headers + b"\r\n"
    with socket.create_connection(("127.0.0.1", noticing.port), timeout=10) as client:
        client.sendall(head + request.read())
        answer = client.makefile("rb").read()  # until the server closes

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"\r\nconnection: close\r\n") == 1
