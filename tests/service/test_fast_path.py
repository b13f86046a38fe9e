"""The fast path gives the answers of ASGI, and leaves all else to it."""

import io
import json
import random
import re
import socket
import threading
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import BinaryIO

import pytest
from PIL import Image

from service.app import Application
from tests.service.conftest import running, wait_until
from tests.service.processes import Service, serve
from tests.synthetic import make_bundle, png

SMALL = png((200, 30, 90))
LARGE = png((200, 30, 90), (300, 300))  # too large for the event loop: goes to a lane
THROUGH_ASGI = "Content-Encoding: identity"  # the fast path leaves it to ASGI


def noise(side: int) -> bytes:
    """An image file that no encoder makes small."""
    pixels = random.Random(0).randbytes(side * side * 3)  # noqa: S311
    stream = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One real process that serves two tiny models."""
    root = tmp_path_factory.mktemp("models")
    make_bundle(root, "colors")
    make_bundle(root, "odd", misbehaves=True)
    with serve(
        root, LINNAEUS_PROCESSES="1", LINNAEUS_DEFAULT_MODEL="colors"
    ) as started:
        yield started


def request(body: bytes, *headers: str, target: str = "/classify") -> bytes:
    """The bytes of one POST."""
    lines = [f"POST {target} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def read_response(stream: BinaryIO) -> tuple[bytes, bytes] | None:
    """The next head and the body that it declares; None: the connection has ended."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.read(1)
        if not byte:
            return None
        head += byte
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    return head, stream.read(length)


def exchange(
    service: Service | SimpleNamespace, *pieces: bytes, answers: int = 1
) -> list[dict]:
    """Send pieces on one connection and read so many JSON answers."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as peer:
        for piece in pieces:
            peer.sendall(piece)
        found = []
        with peer.makefile("rb") as stream:
            for _ in range(answers):
                response = read_response(stream)
                assert response, f"the connection ended after {found}"
                head, body = response
                found.append({"head": head, "body": json.loads(body)})
        return found


def without_id(body: dict) -> dict:
    """An answer but for what differs between any two requests."""
    return {key: body[key] for key in body if key not in ("id", "request_id")}


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (SMALL, "colors"),
        (LARGE, "colors"),
        (noise(300), "colors"),  # comes in many pieces
        (b"garbage" * 10_000, "colors"),
        (LARGE[:100], "colors"),
        (png((255, 0, 0), (300, 300)), "odd"),  # fails inside ONNX Runtime
    ],
)
def test_the_fast_path_and_asgi_answer_alike(service, body, model):
    """Status, headers and members, of answers and of problems."""
    target = f"/classify?model={model}"
    heads, bodies, logged = [], [], []
    for headers in (
        ("Content-Type: image/png",),
        ("Content-Type: image/png", THROUGH_ASGI),
    ):
        (answer,) = exchange(service, request(body, *headers, target=target))
        status, *lines = answer["head"].split(b"\r\n")
        heads.append((status, sorted(line.partition(b":")[0] for line in lines)))
        bodies.append(without_id(answer["body"]))
        mine = re.search(rb"x-request-id: (\w+)", answer["head"])[1].decode()
        logged.append(service.logged("request", request_id=mine))

    assert heads[0] == heads[1]
    assert logged[0].keys() == logged[1].keys()
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "IMAGE/PNG; q=1",
        "application/octet-stream",
        "application/octet-stream ; q=1",
        "application/octet-streamX",
        "image",
        "text/plain",
        "",
    ],
)
def test_a_content_type_is_read_alike_on_both_ways(service, content_type):
    """What is no raw image to one is none to the other."""
    given = f"Content-Type: {content_type}"
    (short,) = exchange(service, request(SMALL, given))
    (through_asgi,) = exchange(service, request(SMALL, given, THROUGH_ASGI))

    assert without_id(short["body"]) == without_id(through_asgi["body"])


INFER = "/v2/models/colors/infer"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/classify", ()),
        ("/classify", ("Content-Encoding: identity",)),
        ("/classify", ("Content-Encoding:",)),
        (INFER, ("Content-Encoding: Identity", "Inference-Header-Content-Length: 0")),
        (INFER, ("Content-Encoding:", "Inference-Header-Content-Length: 0")),
    ],
)
def test_spaces_after_a_header_are_not_of_its_value(service, target, headers):
    """RFC 9112, 5.1; the parser leaves them there."""
    spaced = [f"{header} \t" for header in ("X-Request-ID: mine", *headers)]
    sent = request(SMALL, *spaced, target=target)
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as peer:
        peer.sendall(sent)
        with peer.makefile("rb") as stream:
            head, body = read_response(stream)

    assert head.startswith(b"HTTP/1.1 200 "), body
    assert b"x-request-id: mine\r\n" in head


def test_a_problem_does_not_end_the_connection(service):
    """The next request on it is answered."""
    first, second = exchange(
        service, request(b"garbage" * 10_000), request(LARGE), answers=2
    )

    assert b" 415 " in first["head"]
    assert b" 200 " in second["head"]


def test_pipelined_requests_are_answered_in_order(service):
    """Many at once on one connection, in lanes and on the loop, on both ways."""
    sent = [
        request(image, f"X-Request-ID: {number}", *headers)
        for number, (image, *headers) in enumerate(
            [
                (SMALL,),
                (LARGE,),
                (SMALL, THROUGH_ASGI),
                (LARGE,),
                (SMALL,),
                (LARGE, THROUGH_ASGI),
            ]
        )
    ]

    answers = exchange(service, b"".join(sent), answers=6)

    assert [a["body"]["id"] for a in answers] == ["0", "1", "2", "3", "4", "5"]


def test_a_body_that_comes_in_pieces_is_put_together(service):
    """Many clients send the head and the body apart."""
    whole = request(SMALL, "Content-Type: image/png")
    cut = len(whole) - 20

    (answer,) = exchange(service, whole[:cut], whole[cut:])

    assert answer["body"]["predictions"][0]["label"] == "red"


@pytest.mark.parametrize(
    ("body", "headers", "target", "status"),
    [
        (b"garbage", (), "/classify", 415),
        (b"", (), "/classify", 400),
        (SMALL[:50], (), "/classify", 422),
        (SMALL, ("Content-Type: text/plain",), "/classify", 415),
        (SMALL, (), "/classify?top_k=99", 422),
        (SMALL, (), "/classify?model=none", 404),
        (SMALL, (), "/classify?nonsense=1", 422),
        (SMALL, (), "/classifyx", 404),
        (png((255, 0, 0)), (), "/classify?model=odd", 500),
    ],
)
def test_what_is_not_a_plain_answer_is_told_as_everywhere(
    service, body, headers, target, status
):
    """Every error has the one shape, with a request id."""
    (answer,) = exchange(service, request(body, *headers, target=target))

    assert f" {status} ".encode() in answer["head"].split(b"\r\n")[0]
    assert answer["body"]["status"] == status
    assert answer["body"]["request_id"]


def test_a_poisoned_tiny_image_does_not_disturb_its_neighbors(service):
    """They run in one batch on the event loop, and only the guilty one fails."""
    images = [png((10, 0, 0)), png((255, 0, 0)), png((20, 0, 0))]
    sent = b"".join(request(image, target="/classify?model=odd") for image in images)

    answers = exchange(service, sent, answers=3)

    assert [b" 200 " in a["head"] for a in answers] == [True, False, True]


def test_parameters_count_on_the_short_way(service):
    """top_k and the request id are the client's."""
    (answer,) = exchange(
        service, request(SMALL, "X-Request-ID: mine", target="/classify?top_k=1")
    )

    assert len(answer["body"]["predictions"]) == 1
    assert answer["body"]["id"] == "mine"


def test_a_client_that_closes_is_answered_and_closed(service):
    """`Connection: close` is kept."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as peer:
        peer.sendall(request(SMALL, "Connection: close"))
        stream = peer.makefile("rb")
        head, _ = read_response(stream)

        assert stream.read() == b""
    assert b"connection: close" in head.lower()


@pytest.fixture
def by_asgi(monkeypatch) -> list[bool]:
    """Grows with each request that falls back to ASGI."""
    seen, serve_one = [], Application.__call__

    async def note(app, scope, receive, send):
        seen.append(True)
        await serve_one(app, scope, receive, send)

    monkeypatch.setattr(Application, "__call__", note)
    return seen


@pytest.mark.parametrize(
    "version", [b"1.0", b"1.1"]
)  # nginx sends both, by its settings
@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 192.0.2.1",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Accept-Language: de",
        "Sec-Fetch-Mode: cors",
        "Authorization: Bearer any",
        "Cookie: a=b",
        "X-Request-ID: not harmless",
        "Upgrade: h2c",  # without `Connection: Upgrade` no offer
    ],
)
def test_headers_that_nobody_reads_do_not_keep_a_request_from_the_short_way(
    server, by_asgi, header, version
):
    """Browsers, proxies and tracing add theirs to every request."""
    sent = request(SMALL, header).replace(b"HTTP/1.1", b"HTTP/" + version)

    (answer,) = exchange(server, sent)

    assert answer["body"]["predictions"][0]["label"] == "red"
    assert (b"connection: close" in answer["head"]) == (version == b"1.0")
    assert by_asgi == []


def test_a_header_that_changes_what_is_done_is_read(server, by_asgi):
    """By whom it concerns."""
    (whole,) = exchange(server, request(SMALL, "Content-Encoding: Identity"))
    (packed,) = exchange(server, request(SMALL, "Content-Encoding: gzip"))

    assert whole["body"]["predictions"][0]["label"] == "red"
    assert packed["body"]["code"] == "media_type_unsupported"
    assert by_asgi == [True, True]


@pytest.mark.parametrize("image", [SMALL, LARGE])
def test_requests_on_the_short_way_are_counted_and_logged(service, image):
    """The same metrics and the same log line, and nothing is held any more."""
    requests = partial(service.metric, "linnaeus_requests_total", route="/classify")
    before = requests(status="200")

    (answer,) = exchange(service, request(image))

    assert requests(status="200") == before + 1
    assert service.logged("request", request_id=answer["body"]["id"])["model"] == (
        "colors"
    )
    assert service.metric("linnaeus_buffered_bytes") == 0
    assert service.metric("linnaeus_requests_in_flight") == 1  # the scrape itself


def test_the_time_of_a_body_counts_on_the_short_way_too(server, by_asgi, monkeypatch):
    """Also that after which the request falls back to ASGI, under the same id."""
    monkeypatch.setattr("service.protocol.BODY_TIMEOUT_S", 0.3)
    sent = request(SMALL, "Connection: close")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(sent[:-1])
        wait_until(lambda: by_asgi)
        peer.sendall(sent[-1:])
        head, body = read_response(peer.makefile("rb"))

    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    mine = json.loads(body)["id"]
    (line,) = [each for each in lines if each.get("request_id") == mine]
    assert head.startswith(b"HTTP/1.1 200 ")
    assert line["elapsed_ms"] >= 300


def test_what_was_accepted_before_a_drain_is_answered_though_its_body_is_slow(
    settings_for, by_asgi, monkeypatch
):
    """Also where it falls back to ASGI when new requests are refused already."""
    monkeypatch.setattr("service.protocol.BODY_TIMEOUT_S", 0.5)
    with (
        running(settings_for(drain_timeout_s=20)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer,
    ):
        serving = server.app.serving
        peer.sendall(request(SMALL)[:-1])
        wait_until(lambda: serving.bodies.buffered_bytes)
        server.server._loop.call_soon_threadsafe(server.server.drain)
        wait_until(lambda: serving._refusing and by_asgi)
        peer.sendall(SMALL[-1:])
        answer = peer.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("leaves", [False, True])
def test_a_body_that_is_waited_for_no_more_does_not_fall_back(
    server, by_asgi, monkeypatch, leaves
):
    """It has come, or its client has left, before its time was over."""
    monkeypatch.setattr("service.protocol.BODY_TIMEOUT_S", 0.2)
    serving, loop, later = server.app.serving, server.server._loop, threading.Event()
    sent, complaints = request(LARGE), []
    monkeypatch.setattr(loop, "call_exception_handler", complaints.append)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(sent[:-1])
        wait_until(lambda: serving.bodies.buffered_bytes)
        if leaves:
            peer.close()
            wait_until(lambda: not serving.metrics.in_flight)
        else:
            peer.sendall(sent[-1:])
            read_response(peer.makefile("rb"))
        loop.call_soon_threadsafe(loop.call_later, 0.2, later.set)
        assert later.wait(20)

    assert by_asgi == complaints == []


def test_a_client_that_leaves_costs_no_inference(server, monkeypatch):
    """Its image is withdrawn from the engine, where it may still wait."""
    submitted, withdrawn = [], []

    def wait_for_ever(key, *_, **__):
        submitted.append(key)
        return lambda: withdrawn.append(key)

    monkeypatch.setattr(server.app.serving.engine, "submit", wait_for_ever)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(request(SMALL))
        wait_until(lambda: submitted)
        before = list(withdrawn)
    wait_until(lambda: withdrawn)

    assert before == []
    assert withdrawn == submitted == [("colors", 1)]


@pytest.mark.parametrize("headers", [(), (THROUGH_ASGI,)])
def test_a_request_that_breaks_off_is_counted_and_held_no_more(service, headers):
    """Half a body, then nothing."""
    gone = partial(service.metric, "linnaeus_requests_total", code="client_gone")
    before, mine = gone(), f"broken-{len(headers)}"

    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as peer:
        peer.sendall(request(noise(300), f"X-Request-ID: {mine}", *headers)[:5000])
    line = service.logged("request", request_id=mine)
    assert (line["code"], line["status"]) == ("client_gone", 499)

    assert gone() == before + 1
    assert service.metric("linnaeus_buffered_bytes") == 0
