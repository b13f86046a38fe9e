"""Everything that grows has a bound, in bytes, in time and in number."""

import asyncio
import base64
import gc
import json
import socket
import threading
import time
from contextlib import ExitStack, suppress

import httpx
import pytest

from service.bodies import Bodies
from service.disconnect import LISTEN_AFTER_S
from service.engine.ticket import Ticket
from service.errors import BodyTimeoutError
from service.exchange import SCOPE_KEY, Exchange
from service.routes import batch, classify, infer
from tests.service.conftest import GREEN, RED, running, send, wait_until
from tests.synthetic import SLOW, png

# The model `poison` takes a good while for it; too large to be run on the event loop.
SLOW_IMAGE = png((SLOW, 0, 0), (200, 200))
QUICK_IMAGE = png((1, 2, 3), (200, 200))

TEXT = base64.b64encode(RED).decode()
INPUT = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}

HEAD = b"POST /classify HTTP/1.1\r\nHost: any\r\nContent-Type: image/png\r\n"


def exchange(port: int, *pieces: bytes) -> bytes:
    """Send raw bytes and read until the server closes or a problem has come."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with suppress(ConnectionError):  # the server may refuse before the end
            for piece in pieces:
                connection.sendall(piece)
        received = b""
        while b'"request_id"' not in received:
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
    return received


def test_a_declared_length_over_the_limit_is_refused_before_the_body(
    server, monkeypatch
):
    """No byte of it is waited for, so a client that asks first saves its upload."""
    monkeypatch.setattr("service.protocol.BODY_TIMEOUT_S", 60)
    received = exchange(server.port, HEAD + b"Content-Length: 200001\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 413")
    assert b"at most 200000" in received
    assert b"connection: close" in received.lower()


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/classify", {}),
        ("/classify", {"Content-Encoding": "identity"}),  # through ASGI
        ("/classify/batch", None),
        ("/v2/models/colors/infer", {"Inference-Header-Content-Length": "0"}),
    ],
)
def test_an_image_may_have_as_many_bytes_as_it_may_have(client, path, headers, more):
    """And not one more. Around it there may be others, up to the bound of all."""
    image = RED + bytes(200_000 + more - len(RED))
    if headers is None:
        answer = client.post(path, files=[("files", image), ("files", RED)])
        (code, *_) = [
            each.get("error", {}).get("code", "ok") for each in answer.json()["results"]
        ]
        status = {"ok": 200, "body_too_large": 413}[code]
    else:
        status = client.post(path, content=image, headers=headers).status_code

    assert status == (413 if more else 200)


def test_chunks_are_counted(server):
    """A body without a declared length is bounded as well."""
    chunk = b"%x\r\n%b\r\n" % (50_000, b"x" * 50_000)

    received = exchange(
        server.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 5
    )

    assert received.startswith(b"HTTP/1.1 413")


async def test_the_time_of_a_body_counts_from_the_head():
    """The fast path has waited for a while before it falls back."""
    bodies = Bodies(max_buffered_bytes=1, timeout_s=100)
    began_s = time.perf_counter() - 100
    scope = {"headers": [], SCOPE_KEY: Exchange("id", "POST", "/", began_s)}
    never = asyncio.Event()

    with pytest.raises(BodyTimeoutError, match="within 100 s"):
        async with asyncio.timeout(5):
            await bodies.read(scope, never.wait, limit=1)


def test_a_slow_body_ends_in_408(server):
    """It would hold memory and a connection for as long as it likes."""
    received = exchange(server.port, HEAD + b"Content-Length: 1000\r\n\r\nabc")

    assert received.startswith(b"HTTP/1.1 408")
    assert b"body_timeout" in received
    assert b"connection: close" in received


@pytest.mark.parametrize("sent", [b"", HEAD[:30], HEAD + b"X-More: and more"])
def test_a_slow_head_ends_the_connection(server, sent):
    """Also one that never begins: a connection is not for keeping."""
    received = exchange(server.port, sent)

    assert received.startswith(b"HTTP/1.1 408")


def test_an_endless_head_ends_the_connection(server):
    """Headers are kept in memory for as long as they come."""
    received = exchange(server.port, HEAD, *[b"X-More: " + b"x" * 1000 + b"\r\n"] * 70)

    assert received.startswith(b"HTTP/1.1 431")


def test_a_second_request_has_its_own_bounds(server):
    """On a connection that stays open, each head is counted and timed by itself."""
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(200):  # together more than one head may have
            filler = {"X-Filler": "y" * 500}
            response = client.post("/classify", content=RED, headers=filler)
            assert response.status_code == 200


def test_a_body_that_breaks_off_frees_what_it_held(server):
    """And disturbs nobody."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\nabc")
    send(server.client, RED).raise_for_status()

    assert send(server.client, RED).status_code == 200
    wait_until(lambda: server.app.serving.bodies.buffered_bytes == 0)


def test_all_bodies_together_are_bounded(settings_for):
    """Many large uploads at once are refused, not sworn by."""
    bound = 10_000
    settings = settings_for(
        max_buffered_bytes=bound, max_body_bytes=bound, max_batch_body_bytes=bound
    )
    with running(settings) as server:
        bodies = server.app.serving.bodies
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(HEAD + b"Content-Length: 8000\r\n\r\n" + bytes(7999))
            wait_until(lambda: bodies.buffered_bytes == 7999)
            response = send(server.client, RED + bytes(4_000))
        wait_until(lambda: bodies.buffered_bytes == 0)

    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert int(response.headers["Retry-After"]) >= 1


def test_pixels_are_bounded_also_where_a_tiny_image_is_run_at_once(settings_for):
    """The event loop has a bound of its own; the smaller of the two counts."""
    with running(settings_for(max_pixels=1_000)) as server:
        response = send(server.client, png((9, 9, 9), (128, 128)))

    assert response.status_code == 413
    assert response.json()["code"] == "image_too_many_pixels"


def test_a_late_answer_is_a_504(settings_for):
    """The promise holds even while a run goes on that nobody can interrupt."""
    settings = settings_for(request_timeout_ms=50)
    with running(settings) as server:
        response = send(server.client, SLOW_IMAGE, model="poison")

    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize(
    ("path", "members", "route", "reads"),
    [
        ("/classify", {"image": TEXT}, classify, "read_image"),
        ("/classify/batch", {"images": [TEXT]}, batch, "read_images"),
        ("/v2/models/colors/infer", {"inputs": [INPUT]}, infer, "read_inference"),
    ],
)
def test_the_time_of_a_request_counts_from_its_complete_body(
    settings_for, monkeypatch, path, members, route, reads
):
    """To find the images in tens of megabytes of JSON takes a while, too."""
    read = getattr(route, reads)

    def read_slowly(*arguments, **given):
        time.sleep(0.1)
        return read(*arguments, **given)

    monkeypatch.setattr(route, reads, read_slowly)
    with running(settings_for(request_timeout_ms=50)) as server:
        status = server.client.post(path, json=members).status_code

    assert status == 504


def test_who_sends_for_longer_than_an_answer_may_take_is_answered_all_the_same(
    server, monkeypatch
):
    """The time of an answer is the service's; that of a body has a bound of its own."""
    serving, timeout_s = server.app.serving, 0.5
    bodies = {
        "/classify": RED,  # on the fast path
        "/classify?top_k=1": {"image": TEXT},
        "/classify/batch": {"images": [TEXT]},
        "/v2/models/colors/infer": {"inputs": [INPUT]},
    }
    patient = {"request_timeout_ms": int(1e3 * timeout_s)}
    monkeypatch.setattr(
        serving, "settings", serving.settings.model_copy(update=patient)
    )
    with ExitStack() as stack:
        sending = []
        for path, content in bodies.items():
            raw = isinstance(content, bytes)
            body = content if raw else json.dumps(content).encode()
            kind = "image/png" if raw else "application/json"
            peer = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            stack.enter_context(peer).sendall(
                f"POST {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n"
                f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body[:10]
            )
            sending.append((peer, body[10:]))
        wait_until(lambda: serving.bodies.buffered_bytes == 10 * len(bodies))
        time.sleep(timeout_s)
        for peer, rest in sending:
            peer.sendall(rest)
        answers = [peer.makefile("rb").readline() for peer, _ in sending]

    assert answers == [b"HTTP/1.1 200 OK\r\n"] * len(bodies)


def test_a_batch_that_is_late_by_an_image_keeps_the_answers_it_has(settings_for):
    """Who has to ask again for all of them pays twice for those that came in time."""
    settings = settings_for(request_timeout_ms=300, lanes=1, batch=1)
    files = [("files", image) for image in (RED, GREEN, *[SLOW_IMAGE] * 6)]
    with running(settings) as server:
        response = server.client.post("/classify/batch?model=poison", files=files)

    assert response.status_code == 200
    codes = [r.get("error", {}).get("code", "ok") for r in response.json()["results"]]
    assert codes[:2] == ["ok", "ok"]
    assert codes[-1] == "deadline_exceeded"


def test_an_image_that_took_far_too_long_shuts_out_none_that_comes_later(settings_for):
    """What is refused is not run, and only what is run corrects what was learned."""
    settings = settings_for(request_timeout_ms=50, lanes=1)
    with running(settings) as server:
        send(server.client, SLOW_IMAGE, model="poison")
        status = 504  # as long as the slow one runs
        while status == 504:
            status = send(server.client, QUICK_IMAGE, model="poison").status_code

    assert status == 200


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(settings_for):
    """Rather than to let everybody wait for longer and longer."""
    settings = settings_for(queue_capacity=1, max_batch_items=1)
    with running(settings) as server:
        responses = flood(server.url, SLOW_IMAGE, count=12)

    refused = [r for r in responses if r.status_code == 503]
    assert refused
    assert {r.json()["code"] for r in refused} == {"overloaded"}
    assert all(int(r.headers["Retry-After"]) >= 1 for r in refused)
    assert {r.status_code for r in responses} <= {200, 503}


@pytest.mark.parametrize("header", [{}, {"Content-Encoding": "identity"}])
def test_a_connection_without_a_request_keeps_nothing_of_its_last_image(
    settings_for, header
):
    """Neither does the lane that ran it; `header` chooses the fast path or ASGI."""

    def tickets() -> int:
        gc.collect()
        mine = [each for each in gc.get_objects() if isinstance(each, Ticket)]
        return sum(each.model == ("shades", 1) for each in mine)

    with running(settings_for()) as server, ExitStack() as stack:
        for _ in range(5):
            idle = stack.enter_context(httpx.Client(base_url=server.url, timeout=20))
            headers = {"Content-Type": "image/png", **header}
            image, query = QUICK_IMAGE, {"model": "shades"}
            answer = idle.post(
                "/classify", content=image, params=query, headers=headers
            )
            assert answer.status_code == 200
        wait_until(lambda: tickets() == 0)
        cycles = [each.cycle for each in server.server.server_state.connections]
        assert not any(getattr(cycle, "chunks", ()) for cycle in cycles)


def test_a_client_that_leaves_costs_no_further_work(settings_for):
    """Its request is cancelled and logged as 499."""
    with running(settings_for()) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server.url}/classify?model=poison",
                content=SLOW_IMAGE,
                timeout=httpx.Timeout(10, read=0.05),
            )
        send(server.client, RED).raise_for_status()
        wait_until(lambda: '"client_gone"' in server.log.getvalue())

    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    gone = next(line for line in lines if line.get("code") == "client_gone")
    assert gone["status"] == 499


@pytest.mark.parametrize(
    "image", [{"files": {"file": SLOW_IMAGE}}, {"content": SLOW_IMAGE}]
)
def test_a_client_that_leaves_costs_nothing_for_what_it_has_sent_ahead(
    settings_for, image
):
    """The request at work, in ASGI or on the fast path, is not the newest, of which
    alone uvicorn would tell; and it reads no further than that one.
    """
    given = {"headers": {"Content-Type": "image/png"}} if "content" in image else {}
    form = httpx.Request("POST", "http://any/classify?model=poison", **image, **given)
    target = b"POST /classify?model=poison HTTP/1.1\r\n"
    head = b"".join(b"%b: %b\r\n" % header for header in form.headers.raw)
    with running(settings_for()) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(target + head + b"\r\n" + form.read())
            wait_until(lambda: server.app.serving.metrics.in_flight)
            time.sleep(2 * LISTEN_AFTER_S)  # by now it is looked whether it leaves
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: any\r\n\r\n")
            (connection,) = server.server.server_state.connections
            wait_until(lambda: connection.pipeline)
        wait_until(lambda: '"client_gone"' in server.log.getvalue())


def flood(url: str, image: bytes, *, count: int) -> list[httpx.Response]:
    """Send the same image from many connections at once."""
    responses: list[httpx.Response] = []
    gate = threading.Barrier(count)

    def one() -> None:
        gate.wait()
        with httpx.Client(base_url=url, timeout=60) as client:
            responses.append(send(client, image, model="poison"))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return responses
