"""What surrounds a body is bounded, and an offer of another protocol is declined."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest

from service.connection import MAX_AHEAD, MAX_HEAD_BYTES
from tests.service.conftest import RED, running, send, wait_until
from tests.synthetic import SLOW, png

CHUNKED = (
    b"POST /classify HTTP/1.1\r\nHost: any\r\nContent-Type: image/png\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
GET = b"GET /livez HTTP/1.1\r\nHost: any\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n"
# One piece of data may hold a quarter of a megabyte, which counts for the head before.
MANY = 16 * MAX_HEAD_BYTES
UNREAD = b"%b %b HTTP/1.1\r\nHost: any\r\nContent-Length: 1000\r\n\r\n"
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@pytest.fixture(scope="module")
def impatient(settings_for) -> Iterator[SimpleNamespace]:
    """A server that waits for nobody longer than a second."""
    with running(settings_for(keep_alive_s=1, body_timeout_ms=1_000)) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(settings_for) -> Iterator[SimpleNamespace]:
    """A server that waits a tenth of a second only, less than a slow image takes."""
    with running(settings_for(body_timeout_ms=100)) as server:
        yield server


def test_a_connection_without_a_request_stays_open_as_long_as_the_setting_says(
    impatient,
):
    """A proxy that keeps it for less long never meets one that is being closed."""
    address = "127.0.0.1", impatient.port
    with socket.create_connection(address, timeout=4) as connection:  # uvicorn's: 5 s
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: any\r\n\r\n")
        answer = connection.recv(65_536)
        end = connection.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert end == b""


def post(headers: bytes = b"", image: bytes = RED) -> bytes:
    """A request for one image."""
    return (
        b"POST /classify HTTP/1.1\r\nHost: any\r\nContent-Type: image/png\r\n"
        b"Content-Length: %d\r\n%b\r\n%b" % (len(image), headers, image)
    )


def statuses(port: int, *pieces: bytes, pause_s: float = 0.0) -> list[int]:
    """Send raw bytes, and read the status of each answer until the server closes.

    With a pause before each, the server reads the pieces one by one.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with suppress(ConnectionError):  # the server may refuse before the end
            for piece in pieces:
                time.sleep(pause_s)
                connection.sendall(piece)
        with suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
    return [int(code) for code in ANSWER.findall(received)]


@pytest.mark.parametrize(
    "around",
    [
        b"0\r\n" + b"X-More: and more\r\n" * (MANY // 18),
        b"0\r\nX-More: " + b"x" * MANY,
        b"5;" + b"x" * MANY,
        b"1\r\nx\r\n" * (MANY // 4),
    ],
    ids=["trailers", "one trailer", "chunk extension", "crumbs"],
)
def test_what_surrounds_a_body_is_bounded(server, around):
    """The parser keeps trailers for as long as they come: a gigabyte in a second."""
    pieces = [around[i : i + 8192] for i in range(0, len(around), 8192)]

    assert statuses(server.port, CHUNKED, *pieces) == [431]
    assert send(server.client, RED).status_code == 200


@pytest.mark.parametrize("first", [1_000, MAX_HEAD_BYTES, 2 * MAX_HEAD_BYTES])
@pytest.mark.parametrize("where", [b"GET /%b HTTP/1.1", b"GET / HTTP/1.1\r\nX-A: %b"])
def test_a_whole_head_is_bounded(server, where, first):
    """In a single piece, and in two of which neither is too large by itself."""
    head = where % (b"x" * MAX_HEAD_BYTES) + b"\r\nHost: any\r\n\r\n"
    pieces = [piece for piece in (head[:first], head[first:]) if piece]

    assert statuses(server.port, *pieces, pause_s=0.1) == [431]
    assert send(server.client, RED).status_code == 200


@pytest.mark.parametrize(("version", "found"), [(b"1.0", [200]), (b"1.1", [100, 200])])
def test_a_client_of_http_1_0_gets_no_interim_answer(server, version, found):
    """It would take it for the answer (RFC 9110, 10.1.1)."""
    sent = post(b"Expect: 100-continue\r\nConnection: close\r\n")

    assert statuses(server.port, sent.replace(b"HTTP/1.1", b"HTTP/" + version)) == found


def test_small_chunks_and_a_trailer_are_fine(server):
    """As honest clients send them."""
    body = b"".join(
        b"%x\r\n%b\r\n" % (len(RED[i : i + 9]), RED[i : i + 9])
        for i in range(0, len(RED), 9)
    )

    found = statuses(server.port, CHUNKED + body + b"0\r\nX-Sum: 1\r\n\r\n" + LAST)

    assert found == [200, 200]


def test_what_surrounds_chunks_may_be_as_much_as_is_in_them(server):
    """More than a head may have, if the body is long."""
    head = CHUNKED.replace(b"/classify", b"/classify/batch").replace(
        b"image/png", b"multipart/form-data; boundary=none"
    )

    found = statuses(
        server.port, head + b"9\r\n123456789\r\n" * 43_000 + b"0\r\n\r\n" + LAST
    )

    assert found == [400, 200]


def test_a_head_after_a_long_body_is_bounded_alike(server):
    """What the body had does not count for it."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(post(image=bytes(150_000)))
        while not received.endswith(b"}"):
            received += peer.recv(65536)
        peer.sendall(b"GET / HTTP/1.1\r\nX-A: " + b"x" * 2 * MAX_HEAD_BYTES)
        while chunk := peer.recv(65536):
            received += chunk

    assert [int(code) for code in ANSWER.findall(received)] == [415, 431]


@pytest.mark.parametrize(
    ("codings", "status"),
    [
        (b"chunked", 200),
        (b"Chunked ", 200),
        (b"gzip, chunked", 501),
        (b"gzip\r\nTransfer-Encoding: chunked", 501),
        (b"chunked, chunked", 400),
        (b"gzip", 400),
        (b"gzip, deflate", 400),
    ],
)
def test_a_body_is_not_read_as_if_it_were_not_coded(server, codings, status):
    """Of all codings only chunks are undone (RFC 9112, 6.1 and 6.3)."""
    head = CHUNKED.replace(b"chunked", codings)
    sent = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(RED), RED)

    assert statuses(server.port, sent + LAST) == [status, 200][: 1 + (status == 200)]


@pytest.mark.parametrize(
    "trailer",
    [
        b"Content-Type: application/json",
        b"Content-Encoding: gzip",
        b"X-Request-ID: late",
    ],
)
def test_a_trailer_is_no_header(server, trailer):
    """Else it would count if it came in one piece with the head, and not if later."""
    body = b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(RED), RED, trailer)

    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(CHUNKED + body + LAST)
        answers = b"".join(iter(lambda: peer.recv(65536), b""))

    assert [int(code) for code in ANSWER.findall(answers)] == [200, 200]
    assert b"x-request-id: late" not in answers


def test_requests_sent_ahead_are_answered_in_order(server):
    """Also where many stand in one piece of data, longer than one head may be."""
    bad = post().replace(b"/classify", b"/classify?top_k=0")
    ahead = post(b"X-Filler: " + b"y" * 1_000 + b"\r\n") * 100

    found = statuses(server.port, ahead + bad + GET, LAST, pause_s=0.1)

    assert found == [200] * 100 + [422, 200, 200]


def test_no_more_than_some_are_kept(server):
    """Each takes a hundred times the memory of what was sent."""
    kept = [200] * (MAX_AHEAD + 1)  # and the one at work

    assert statuses(server.port, GET * (MAX_AHEAD + 2)) == [*kept, 429]
    assert statuses(server.port, GET * (MAX_AHEAD - 1) + LAST) == [200] * MAX_AHEAD


@pytest.mark.parametrize("first", [post(), GET, GET * 3], ids=["short", "asgi", "3"])
@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"CONNECT any:443 HTTP/1.1\r\nHost: any\r\n\r\n", 400),
        (b"no HTTP\r\n\r\n", 400),
        (b"GET http://any:99999/livez HTTP/1.1\r\nHost: any\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nX-Filler: " + b"x" * MANY, 431),
        (CHUNKED + b"no length\r\n", 400),
    ],
    ids=["hosts", "tunnel", "garbage", "target", "large", "chunks"],
)
def test_a_refusal_waits_for_the_answers_before_it(server, first, refused, status):
    """A client takes the next answer for that of its oldest request."""
    answers = [200] * (first.count(b"HTTP/1.1"))

    assert statuses(server.port, first + refused + GET) == [*answers, status]


def test_half_a_head_is_refused_after_the_answers_before_it(hasty):
    """Its time is over while the image before it still runs."""
    slow = png((SLOW, 0, 0), (300, 300))  # goes to a lane, not on the event loop
    query = b"POST /classify?model=poison HTTP/1.1\r\n"
    sent = post(image=slow).replace(b"POST /classify HTTP/1.1\r\n", query)
    answers = b""

    with socket.create_connection(("127.0.0.1", hasty.port), timeout=20) as peer:
        peer.sendall(sent + GET[:-2])
        there = hasty.server.server_state.connections
        wait_until(lambda: there)
        wait_until(lambda: all(each._refusal is not None for each in list(there)))
        peer.sendall(GET[-2:])  # too late
        while chunk := peer.recv(65536):
            answers += chunk

    assert [int(code) for code in ANSWER.findall(answers)] == [200, 408]


OFFER = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
)


@pytest.mark.parametrize("cut", [1, 60, 150, 230, 260, 300])
def test_an_offer_of_another_protocol_is_declined(server, cut):
    """Java's HttpClient and `curl --http2` offer HTTP/2; the body is the image's."""
    request = post(OFFER)

    assert statuses(server.port, request[:cut], request[cut:] + LAST) == [200, 200]


def test_a_websocket_is_declined(server):
    """The ordinary answer, on a connection that goes on."""
    offer = (
        b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    )

    assert statuses(server.port, GET[:-2] + offer + b"\r\n" + LAST) == [200, 200]


@pytest.mark.parametrize(
    ("request_", "status", "later"),
    [
        (UNREAD % (b"POST", b"/classify?model=none"), 404, bytes(1_000)),
        (UNREAD % (b"POST", b"/classify?model=none"), 404, bytes(999)),
        (UNREAD % (b"GET", b"/livez"), 200, b"x"),
        (GET, 200, b"\r\n"),
        (post(), 200, b"\r\n"),
    ],
    ids=["body", "most of a body", "byte", "empty line", "empty line, fast path"],
)
def test_what_comes_after_an_answer_does_not_keep_a_connection(
    impatient, request_, status, later
):
    """Clients send head and body apart; what comes of a body that was not waited for is
    no request, nor is an empty line."""
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as peer:
        peer.sendall(request_)
        answer = b""
        while not answer.endswith(b"}"):
            answer += peer.recv(65536)
        peer.sendall(later)
        while chunk := peer.recv(65536):
            answer += chunk

    assert [int(code) for code in ANSWER.findall(answer)] == [status]


@pytest.mark.parametrize("target", [b"example.org:443", b"/"])
def test_this_is_no_proxy(server, target):
    """CONNECT asks for a tunnel."""
    request = b"CONNECT " + target + b" HTTP/1.1\r\nHost: any\r\n\r\n"

    assert statuses(server.port, request) == [400]


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        (b"1.1", b"", 400),
        (b"1.1", b"Host: a\r\nHost: b\r\n", 400),
        (b"1.0", b"", 200),
        (b"1.0", b"Host: a\r\nHost: b\r\n", 400),
    ],
)
@pytest.mark.parametrize("line", [b"GET /livez", b"POST /classify"])
def test_a_request_names_one_host(server, line, version, hosts, status):
    """Where two are read differently by a proxy and a server, attacks get in."""
    image = RED if line.startswith(b"POST") else b""
    head = b"%b HTTP/%b\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n"

    sent = head % (line, version, hosts, len(image)) + image

    assert statuses(server.port, sent) == [status]


def test_what_is_no_request_yet_is_in_no_metric_and_has_no_line(settings_for):
    """A bare status belongs to no exchange: no route, no id."""
    with running(settings_for()) as server:
        assert statuses(server.port, b"no HTTP at all\r\n\r\n") == [400]
        assert statuses(server.port, GET.replace(b"Host: any\r\n", b"")) == [400]
        page = server.client.get("/metrics").text
        server.client.get("/models")

    counts = re.findall(r"^linnaeus_requests_total\{.*\} (\S+)$", page, re.MULTILINE)
    assert set(counts) == {"0.0"}
    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    paths = [line["path"] for line in lines if line["event"] == "request"]
    assert paths == ["/models"]
