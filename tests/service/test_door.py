"""A process has only so many connections at once; the next one is told so."""

import http.client
import json
import socket
from contextlib import ExitStack, closing
from types import SimpleNamespace

import httpx
import pytest

from service.door import MOST_HEARD_OUT
from service.files import OTHER_FILES, connections_within
from tests.service.conftest import RED, running, send, wait_until

MOST = 3


@pytest.fixture
def small(settings_for):
    """A server with room for three connections."""
    with running(settings_for(max_connections=MOST)) as server:
        yield server


def fill(server: SimpleNamespace, stack: ExitStack, count: int) -> list[socket.socket]:
    """So many more connections, which ask nothing and are let in."""
    address = "127.0.0.1", server.port
    idle = [
        stack.enter_context(socket.create_connection(address, timeout=20))
        for _ in range(count)
    ]
    wait_until(lambda: opened(server) >= count)
    return idle


def opened(server: SimpleNamespace) -> int:
    """The connections that the server has."""
    return len(server.server.server_state.connections)


def test_one_connection_too_many_is_refused_and_those_before_it_are_served(small):
    """With a 503 that says when to come back."""
    with ExitStack() as stack:
        idle = fill(small, stack, MOST)

        refused = httpx.get(f"{small.url}/livez", timeout=20)
        idle[0].sendall(b"GET /livez HTTP/1.1\r\nHost: any\r\n\r\n")
        answer = idle[0].recv(65536)

    assert (refused.status_code, refused.content) == (503, b"")
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["Connection"] == "close"
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_who_sends_a_whole_image_hears_the_refusal(small):
    """Not a connection that is reset in the middle of sending."""
    with ExitStack() as stack:
        fill(small, stack, MOST)
        late = http.client.HTTPConnection("127.0.0.1", small.port, timeout=20)
        with closing(late):
            late.request("POST", "/classify", body=bytes(5_000_000))
            answer = late.getresponse()

            assert answer.status == 503


def test_few_of_the_refused_are_heard_out(small):
    """They stay open for seconds, and would take what files and probes need."""
    with ExitStack() as stack:
        fill(small, stack, MOST)
        address = "127.0.0.1", small.port
        for _ in range(3 * MOST_HEARD_OUT):
            late = stack.enter_context(socket.create_connection(address, timeout=20))
            assert late.recv(65536).startswith(b"HTTP/1.1 503")

        assert MOST + 1 < opened(small) <= MOST + MOST_HEARD_OUT + 1


def test_there_is_room_again_once_a_connection_ends(small):
    """Nothing of the refused ones stays, either."""
    with ExitStack() as stack:
        idle = fill(small, stack, MOST)
        assert httpx.get(f"{small.url}/livez", timeout=20).status_code == 503

        for connection in idle:
            connection.close()
        wait_until(lambda: opened(small) == 0)

    assert send(small.client, RED).status_code == 200


def test_refused_connections_are_counted_and_logged_sparingly(small):
    """Refusals come by the thousand; one line a second tells of them."""
    with ExitStack() as stack:
        idle = fill(small, stack, MOST)
        for _ in range(5):
            httpx.get(f"{small.url}/livez", timeout=20)
        idle.pop().close()
        wait_until(lambda: opened(small) == MOST - 1)
        page = small.client.get("/metrics").text

    lines = [json.loads(line) for line in small.log.getvalue().splitlines()]
    told = [line for line in lines if line["event"] == "connections_refused"]
    assert 1 <= len(told) < 5
    assert (told[0]["level"], told[0]["most"]) == ("warning", MOST)
    assert "\nlinnaeus_connections_refused_total 5.0\n" in page
    assert f"\nlinnaeus_connections {MOST:.1f}\n" in page  # the one that asks, too


@pytest.mark.parametrize(
    ("wanted", "soft", "most"),
    [
        (4096, 65_536, 4096),
        (4096, 1024, 1024 - OTHER_FILES),
        (4096, 10, 1),
        (100, 1024, 100),
    ],
)
def test_connections_leave_files_for_everything_else(monkeypatch, wanted, soft, most):
    """Or bundles could not be read, and probes would be cut off without an answer."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))

    assert connections_within(wanted) == most


def test_a_process_of_few_files_lets_few_connections_in(settings_for, monkeypatch):
    """Whatever the setting says: they would take what bundles and pipes need."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    soft = OTHER_FILES + 2
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    with running(settings_for(max_connections=4096)) as server, ExitStack() as stack:
        fill(server, stack, 2)

        assert httpx.get(f"{server.url}/livez", timeout=20).status_code == 503


def test_no_limit_on_files_is_no_bound(monkeypatch):
    """RLIM_INFINITY is -1 to Python, and less than any number."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    infinite = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (infinite, infinite))

    assert connections_within(4096) == 4096
