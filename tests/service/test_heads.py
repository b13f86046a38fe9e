"""A request whose head came before does without the parser, and is answered alike."""

import itertools
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.connection import MAX_HEAD_BYTES as MAX_HEAD
from service.connection import Parser
from service.heads import MAX_HEADERS, MAX_HEADS, MAX_KNOWN_BYTES, Head, Heads
from tests.service.conftest import running, wait_until
from tests.service.test_fast_path import (
    LARGE,
    SMALL,
    THROUGH_ASGI,
    read_response,
    request,
    without_id,
)
from tests.synthetic import png

READ = Head(b"", [(b"host", b"here")], 5, True)
HEAD = b"POST /classify HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\n"
BLUE = png((10, 10, 250))


def test_a_head_is_known_when_it_has_come_twice():
    """Its bytes and the length of the body that came behind them must be the same."""
    heads = Heads()
    assert heads.find(HEAD, 5) is None
    heads.learn(HEAD, READ)
    assert heads.find(HEAD, 5) is None
    heads.learn(HEAD, READ)

    assert heads.find(HEAD, 5) is READ
    assert heads.find(HEAD, 4) is None
    assert heads.find(HEAD, 6) is None
    assert heads.find(HEAD[:-1], 5) is None


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"x-api-key",
        b"x-auth-token",
        b"x-csrf-token",
        b"x-session-id",
        b"x-goog-iap-jwt-assertion",
        b"x-hub-signature-256",
        b"x-client-secret",
    ],
)
def test_what_a_client_proves_itself_with_is_not_kept(name):
    """It would stay in memory after the request."""
    heads = Heads()
    for _ in range(3):
        heads.learn(HEAD, READ._replace(headers=[*READ.headers, (name, b"secret")]))

    assert heads.find(HEAD, 5) is None
    assert heads._heads == {}


def test_heads_are_bounded_in_bytes_and_number():
    """Too many push out those that came before, which are then learned again."""
    heads = Heads()
    long = HEAD + b"x" * (MAX_KNOWN_BYTES - len(HEAD) + 1)
    for head in (HEAD, HEAD, long, long, long[:-1], long[:-1]):
        heads.learn(head, READ)
    assert heads.find(HEAD, 5) is READ
    assert heads.find(long, 5) is None
    assert heads.find(long[:-1], 5) is READ

    many = READ._replace(headers=[(b"a", b"")] * MAX_HEADERS)
    more = READ._replace(headers=[(b"a", b"")] * (MAX_HEADERS + 1))
    for head, read in ((b"many", many), (b"more", more)):
        heads.learn(head, read)
        heads.learn(head, read)
    assert heads.find(b"many", 5) is many
    assert heads.find(b"more", 5) is None

    for number in range(MAX_HEADS - 3):
        heads.learn(b"%d" % number, READ)
    heads.learn(HEAD, READ)
    assert heads.find(HEAD, 5) is READ
    heads.learn(b"one more", READ)

    assert heads.find(HEAD, 5) is None
    assert len(heads._heads) == 1


@contextmanager
def connected(port: int) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """A connection, and what is read from it."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as peer,
        peer.makefile("rb") as stream,
    ):
        yield peer, stream


def read_answer(stream: BinaryIO) -> tuple[bytes, list[bytes], dict] | None:
    """Status line, names of headers, and body; None: the server has closed."""
    response = read_response(stream)
    if response is None:
        return None
    head, content = response
    status, *lines = head.lower().split(b"\r\n")
    body = without_id(json.loads(content)) if content.startswith(b"{") else {}
    names = sorted(line.partition(b":")[0] for line in lines)
    return status, [n for n in names if n != b"server-timing"], body


def conversation(port: int, pieces: Sequence[tuple[bytes, int]]) -> list:
    """Send each piece once the answers of those before it have come.

    None stands for an answer in whose place the server has closed.
    """
    found = []
    with connected(port) as (peer, stream):
        for piece, due in pieces:
            try:
                peer.sendall(piece)
                answers = [read_answer(stream) for _ in range(due)]
            except ConnectionError:  # it was closed before all was sent
                answers = [None]
            found += answers
            if None in answers:
                break
    return found


def learned(port: int, *sent: bytes) -> None:
    """Send requests until their heads are known."""
    for _ in range(2):
        conversation(port, [(each, 1) for each in sent])


def connections(server: SimpleNamespace, wanted: Callable[..., object]) -> list:
    """Of its connections those that are wanted."""
    there = list(server.server.server_state.connections)  # the loop changes it
    return [each for each in there if wanted(each)]


@pytest.fixture
def parsed(monkeypatch) -> list[bytes]:
    """Grows with each piece of data that the parser gets."""
    pieces, feed = [], Parser.feed_data

    def note(parser, data):
        pieces.append(bytes(data))
        feed(parser, data)

    monkeypatch.setattr(Parser, "feed_data", note)
    return pieces


def test_what_clients_repeat_is_parsed_twice_and_no_more(server, parsed):
    """On all their connections, whatever the image is."""
    mine = "X-Client: repeats"
    once = (request(SMALL, mine), 1)
    other = request(BLUE, mine)
    assert len(BLUE) == len(SMALL)

    first = conversation(server.port, [once, once, once, (other, 1)])
    second = conversation(server.port, [once, once])

    assert parsed == [once[0], once[0]]
    assert first[0] == first[1] == first[2] == second[0]
    labels = [answer[2]["predictions"][0]["label"] for answer in first]
    assert labels == ["red", "red", "red", "blue"]


@pytest.mark.parametrize(
    "pieces",
    [
        [request(SMALL) + request(SMALL)],  # two at once
        [request(SMALL)[:-1], request(SMALL)[-1:]],
        [request(SMALL)[:20], request(SMALL)[20:]],
        [request(SMALL) + b"\r\n"],
        [request(SMALL + b"x")],
        [request(SMALL, "Accept: */*")],
    ],
)
def test_what_is_more_or_less_than_a_known_head_and_its_body_is_parsed(
    server, parsed, pieces
):
    """From its first byte."""
    learned(server.port, request(SMALL))
    parsed.clear()

    with connected(server.port) as (peer, _):
        for piece in pieces:
            peer.sendall(piece)
            wait_until(lambda piece=piece: parsed[-1:] == [piece])

    assert parsed == pieces


def test_a_piece_without_an_end_of_its_head_teaches_nothing(server, parsed):
    """Its first bytes could pass for a head that declares the rest as its body, or
    what they say for that of the head before."""
    before = request(SMALL, "X-Client: before")
    whole = request(SMALL, f"X-Client: {'slow' * 9}", target="/classify?top_k=1")
    cut = len(SMALL) + 3
    assert cut < whole.index(b"\r\n\r\n")
    for _ in range(4):
        with connected(server.port) as (peer, stream):
            peer.sendall(before)
            assert len(read_answer(stream)[2]["predictions"]) == 3
            parsed.clear()
            peer.sendall(whole[:cut])
            wait_until(lambda: parsed)
            peer.sendall(whole[cut:])
            assert read_answer(stream)[0] == b"http/1.1 200 ok"

        assert parsed == [whole[:cut], whole[cut:]]


def test_empty_lines_before_a_request_are_no_head(server, parsed):
    """Also if its body shall be as long as what came of the request so far."""
    head = request(bytes(100))[:-100]
    behind = len(head) + 1
    first = b"\r\n\r\n" + head.replace(b"100", b"%03d" % behind) + b"x"
    for _ in range(2):
        with connected(server.port) as (peer, stream):
            parsed.clear()
            peer.sendall(first)
            wait_until(lambda: parsed)
            peer.sendall(bytes(behind - 1))
            read_answer(stream)
    live = b"GET /livez HTTP/1.1\r\nHost: here\r\nX-Filler: "
    live += b"x" * (behind - len(live) - 4) + b"\r\n\r\n"

    (answer,) = conversation(server.port, [(b"\r\n\r\n" + live, 1)])

    assert answer[2] == {"status": "live"}


def test_a_known_head_waits_for_the_answer_before_it(server, parsed, monkeypatch):
    """Answers go in the order of their requests."""
    learned(server.port, request(SMALL))
    engine, held = server.app.serving.engine, []
    submit = engine.submit

    def hold(*given, **named):
        held.append(lambda: submit(*given, **named))
        return lambda: None

    with connected(server.port) as (peer, stream):
        peer.sendall(request(SMALL))
        read_answer(stream)
        parsed.clear()
        with monkeypatch.context() as patch:
            patch.setattr(engine, "submit", hold)
            peer.sendall(request(SMALL))
            wait_until(lambda: held)
            (connection,) = connections(server, lambda each: each._waiting)
            assert connection.timeout_keep_alive_task is None  # is not idle
            peer.sendall(request(BLUE))
            wait_until(lambda: parsed)
            assert len(held) == 1
        server.server._loop.call_soon_threadsafe(held[0])
        answers = [read_answer(stream)[2] for _ in range(2)]

    assert [a["predictions"][0]["label"] for a in answers] == ["red", "blue"]


def test_a_client_that_does_not_read_its_answers_is_served_no_faster(server, parsed):
    """Its known heads are parsed, and answered by ASGI once it reads."""
    learned(server.port, request(SMALL))
    with connected(server.port) as (peer, stream):
        mine = peer.getsockname()
        wait_until(lambda: connections(server, lambda each: each.client == mine))
        (connection,) = connections(server, lambda each: each.client == mine)
        call = server.server._loop.call_soon_threadsafe
        call(connection.flow.pause_writing)
        wait_until(lambda: connection.flow.write_paused)
        parsed.clear()
        peer.sendall(request(SMALL))
        wait_until(lambda: parsed)
        wait_until(lambda: connection.cycle is not None)
        assert isinstance(connection.cycle, RequestResponseCycle)
        call(connection.flow.resume_writing)
        assert read_answer(stream)[0] == b"http/1.1 200 ok"


def test_a_head_that_never_comes_with_its_body_is_not_kept(server, parsed):
    """It could not be served without the parser."""
    whole = request(SMALL, "X-Client: sends twice")
    head = whole.removesuffix(SMALL)
    with connected(server.port) as (peer, stream):
        peer.sendall(head)
        wait_until(lambda: parsed)
        peer.sendall(SMALL)
        read_answer(stream)
        mine = peer.getsockname()
        (connection,) = connections(server, lambda each: each.client == mine)

        assert head not in connection._heads._heads


def test_a_body_that_looks_like_a_known_request_is_none(server, parsed):
    """Also when its request was answered before it came."""
    inner = request(SMALL)
    learned(server.port, inner)
    parsed.clear()
    outer = b"GET /livez HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n"
    with connected(server.port) as (peer, stream):
        peer.sendall(outer % len(inner))
        live = read_answer(stream)
        peer.sendall(inner)
        wait_until(lambda: inner in parsed)
        peer.sendall(outer % 0)
        assert read_answer(stream) == live


def test_a_known_request_within_a_head_is_part_of_it(server, parsed):
    """Its first line is the value of a header."""
    inner = request(SMALL)
    learned(server.port, inner)
    parsed.clear()
    with connected(server.port) as (peer, stream):
        peer.sendall(b"GET /livez HTTP/1.1\r\nX-Inner: ")
        wait_until(lambda: parsed)
        peer.sendall(inner)
        assert read_answer(stream)[2] == {"status": "live"}


def test_empty_lines_between_known_requests_do_not_add_up(server, parsed):
    """Before each there may be as many bytes of them as a head may have."""
    learned(server.port, request(SMALL))
    empty = b"\r\n" * (MAX_HEAD // 2)
    with connected(server.port) as (peer, stream):
        for _ in range(3):  # the first is parsed: its connection began with others
            parsed.clear()
            peer.sendall(empty)
            wait_until(lambda: sum(map(len, parsed)) == len(empty))
            peer.sendall(request(SMALL))
            assert read_answer(stream)[0] == b"http/1.1 200 ok"


def test_a_full_service_refuses_known_heads_as_it_does_others(server, monkeypatch):
    """What cannot be held goes the long way, and nothing stays counted."""
    learned(server.port, request(SMALL))
    bodies = server.app.serving.bodies
    monkeypatch.setattr(bodies, "_max_buffered_bytes", 10)

    (refused,) = conversation(server.port, [(request(SMALL), 1)])

    assert refused[0] == b"http/1.1 503 service unavailable"
    assert refused[2]["code"] == "overloaded"
    assert bodies.buffered_bytes == 0


def test_a_known_head_counts_as_the_first_of_its_connection(settings_for, monkeypatch):
    """No timer of a head is left that would end the connection, and the end of the
    service waits for no first request."""
    monkeypatch.setattr("service.connection.LAST_S", 60)
    with running(settings_for(body_timeout_ms=300)) as hasty:
        learned(hasty.port, request(SMALL))
        with connected(hasty.port) as (peer, stream):
            peer.sendall(request(SMALL))
            read_answer(stream)
            peer.settimeout(1)
            with pytest.raises(TimeoutError):
                peer.recv(1)
            mine = peer.getsockname()
            (connection,) = connections(hasty, lambda each: each.client == mine)
            hasty.server._loop.call_soon_threadsafe(connection.shutdown)
            peer.settimeout(20)
            assert peer.recv(1) == b""


class NoHeads(Heads):
    """Remembers nothing."""

    def learn(self, head: bytes, read: Head) -> None:
        """Forget it."""


@pytest.fixture(scope="module")
def forgetful(settings_for) -> Iterator[SimpleNamespace]:
    """A server that parses everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.server.Heads", NoHeads)
        with running(settings_for()) as server:
            yield server


@pytest.fixture(scope="module")
def remembering(settings_for) -> Iterator[SimpleNamespace]:
    """A server with the same settings that does not."""
    with running(settings_for()) as server:
        yield server


REQUESTS = [
    request(SMALL),
    request(SMALL),
    request(BLUE, "Content-Type: image/png"),
    request(SMALL, target="/classify?top_k=1"),
    request(SMALL, target="/classify?top_k=99"),
    request(SMALL, target="/classify?explain=true"),
    request(b"x" * len(SMALL)),
    request(LARGE),
    request(SMALL, THROUGH_ASGI),
    request(SMALL, "Upgrade: h2c", "Connection: Upgrade"),
    request(b""),
    b"\r\n" + request(SMALL),
    b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n",
    b"POST /classify HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMALL), SMALL),
]

LAST = [  # with whose answer the server closes
    request(SMALL, "Connection: close"),
    request(SMALL, "Host: there"),
    request(SMALL).replace(b"HTTP/1.1", b"HTTP/1.0"),
]


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_who_remembers_heads_answers_as_who_does_not(remembering, forgetful, data):
    """Whatever comes in which order, however it is cut."""
    sent = data.draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6))
    sent += data.draw(st.lists(st.sampled_from(LAST), max_size=1))
    stream = b"".join(sent)
    ends = [sum(map(len, sent[: n + 1])) for n in range(len(sent))]
    inside = st.integers(1, max(1, len(stream) - 1))
    cuts = data.draw(st.sets(st.one_of(st.sampled_from(ends), inside), max_size=8))
    at = sorted({0, *cuts, len(stream)})
    pieces = [
        (stream[a:b], sum(a < end <= b for end in ends))
        for a, b in itertools.pairwise(at)
    ]

    found, expected = (
        conversation(server.port, pieces) for server in (remembering, forgetful)
    )

    assert found == expected
