"""The short way gives the answers of the ordinary way, and gives up for all else."""

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.service.processes import Service, serve
from tests.synthetic import make_bundle, png

SMALL = png((200, 30, 90))
LARGE = png((200, 30, 90), (300, 300))


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


def exchange(service: Service, *pieces: bytes, answers: int = 1) -> list[dict]:
    """Send pieces on one connection and read so many JSON answers."""
    with socket.create_connection((service.host, service.port), timeout=20) as peer:
        for piece in pieces:
            peer.sendall(piece)
        read, found = b"", []
        with peer.makefile("rb") as stream:
            for _ in range(answers):
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    byte = stream.read(1)
                    assert byte, f"the connection ended after {head + read!r}"
                    head += byte
                length = int(re.search(rb"content-length: (\d+)", head)[1])
                body = json.loads(stream.read(length))
                found.append({"head": head, "body": body})
        return found


def without_id(body: dict) -> dict:
    """An answer but for what differs between any two requests."""
    return {key: value for key, value in body.items() if key != "id"}


def test_the_short_way_and_the_ordinary_way_answer_alike(service):
    """A header that the short way does not know sends the same image the other way."""
    (short,) = exchange(service, request(SMALL, "Content-Type: image/png"))
    (ordinary,) = exchange(
        service, request(SMALL, "Content-Type: image/png", "X-Other: 1")
    )

    assert without_id(short["body"]) == without_id(ordinary["body"])
    names = [
        sorted(line.split(b":")[0] for line in each["head"].split(b"\r\n")[1:])
        for each in (short, ordinary)
    ]
    assert names[0] == names[1]


def test_pipelined_requests_are_answered_in_order(service):
    """Three at once on one connection: a tiny one, a large one, a tiny one."""
    sent = [
        request(image, f"X-Request-ID: {name}", "Content-Type: image/png")
        for name, image in (("first", SMALL), ("second", LARGE), ("third", SMALL))
    ]

    answers = exchange(service, b"".join(sent), answers=3)

    assert [a["body"]["id"] for a in answers] == ["first", "second", "third"]


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
    (answer,) = exchange(service, request(SMALL, "Connection: close"))

    assert b"connection: close" in answer["head"].lower()


def test_requests_on_the_short_way_are_counted_and_logged(service):
    """The same metrics and the same log line."""
    before = service.metric("linnaeus_requests_total", route="/classify", status="200")

    exchange(service, request(SMALL, "X-Request-ID: counted"))

    after = service.metric("linnaeus_requests_total", route="/classify", status="200")
    assert after == before + 1
    assert service.logged("request", request_id="counted")["model"] == "colors"
