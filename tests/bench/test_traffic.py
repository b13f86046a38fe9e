"""arrivals → shots, against a real server on a port."""

import itertools
import random

import pytest

from bench.bodies import raw
from bench.client import Target
from bench.ending import MeasurementError
from bench.latency import BROKEN, EXPIRED
from bench.traffic import (
    Load,
    constant_arrivals,
    offer,
    poisson_arrivals,
    run,
    saturate,
)
from tests.bench.tiny_server import response, tiny_server


async def shots_of(load, answer):
    """Offer the load to a server of this test."""
    async with tiny_server(answer) as (target, tiny):
        return await offer(load, target), tiny


async def test_every_arrival_becomes_one_shot_with_the_next_body():
    """Bodies go round in order, so that no cache of answers would help."""
    bodies = [raw(b"a"), raw(b"b")]

    shots, tiny = await shots_of(
        Load([0.0] * 5, bodies, connections=1), lambda _: response(200)
    )

    assert [shot.status for shot in shots] == [200] * 5
    assert tiny.bodies == [b"a", b"b", b"a", b"b", b"a"]
    assert tiny.connections == 1


async def test_a_client_that_starts_late_counts_the_delay():
    """Meant for 2 s ago: the answer is 2 s late, however fast the server."""
    shots, _ = await shots_of(Load([-2.0], [raw(b"a")]), lambda _: response(200))

    assert shots[0].latency_s >= 2.0
    assert shots[0].done_s - shots[0].sent_s < 2.0


async def test_a_request_that_waits_for_a_connection_counts_the_wait():
    """With one connection, ten at once are answered one after another."""
    load = Load([0.0] * 10, [raw(b"a")], connections=1)

    shots, _ = await shots_of(load, lambda _: response(200))

    done = [shot.done_s for shot in shots]
    assert done == sorted(done)
    assert shots[-1].latency_s > shots[0].latency_s


async def test_a_refusal_keeps_its_retry_after():
    """The header's name is found in any case."""
    shots, _ = await shots_of(
        Load([0.0], [raw(b"a")]), lambda _: response(503, "retry-AFTER: 7")
    )

    assert (shots[0].status, shots[0].retry_after_s) == (503, 7.0)


async def test_a_server_that_hangs_up_is_a_broken_shot():
    """The load goes on with a new connection."""
    load = Load([0.0, 0.0], [raw(b"leave"), raw(b"stay")], connections=1)

    shots, tiny = await shots_of(
        load, lambda body: b"" if body == b"leave" else response(200)
    )

    assert [shot.status for shot in shots] == [BROKEN, 200]
    assert tiny.connections == 2


async def test_a_connection_that_the_server_closed_is_not_used_again():
    """Keep-alive ends when the server says so, which is no error of a request."""
    load = Load([0.0, 0.3], [raw(b"last"), raw(b"next")], connections=1)

    shots, tiny = await shots_of(load, lambda _: response(200))

    assert [shot.status for shot in shots] == [200, 200]
    assert tiny.connections == 2


async def test_nobody_listening_is_a_broken_shot():
    """Not a crash of the measurement."""
    async with tiny_server(lambda _: response(200)) as (target, _):
        gone = target
    shots = await saturate([raw(b"a")], gone, connections=1, seconds=0.01)

    assert {shot.status for shot in shots} == {BROKEN}


async def test_patience_ends():
    """An answer that never becomes whole is given up, and says so."""
    load = Load([0.0], [raw(b"a")], patience_s=0.05)

    shots, _ = await shots_of(load, lambda _: response(200)[:-1])

    assert shots[0].status == EXPIRED


async def test_an_answer_that_the_client_cannot_read_is_not_taken_for_one():
    """A chunked answer has no length; guessing one would cut it."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"

    shots, _ = await shots_of(Load([0.0], [raw(b"a")]), lambda _: chunked)

    assert shots[0].status == BROKEN


async def test_a_closed_loop_has_as_many_requests_inside_as_connections():
    """Each waits for its answer before it sends the next."""
    async with tiny_server(lambda _: response(200)) as (target, tiny):
        shots = await saturate([raw(b"a")], target, connections=3, seconds=0.1)

    assert tiny.connections == 3
    assert len(shots) == len(tiny.bodies)
    assert {shot.status for shot in shots} == {200}


def seeded(seed):
    """A generator for a load."""
    return random.Random(seed)  # noqa: S311  a load, not a secret


def test_constant_arrivals_are_evenly_spaced():
    """The first comes at once."""
    assert constant_arrivals(4, 1) == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_repeat_with_their_seed_and_keep_their_rate():
    """20,000 expected arrivals vary by about 141: five deviations are allowed."""
    first = poisson_arrivals(2000, 10, rng=seeded(7))

    assert first == poisson_arrivals(2000, 10, rng=seeded(7))
    assert abs(len(first) - 20_000) < 5 * 141
    assert first == sorted(first)
    assert first[0] > 0
    assert first[-1] < 10


@pytest.mark.parametrize(
    ("arrivals_s", "bodies"),
    [([0.0] * 1_000_001, [raw(b"a")]), ([601.0], [raw(b"a")]), ([0.0], [])],
)
def test_a_load_has_a_bound(arrivals_s, bodies):
    """In requests and in time; and it needs something to send."""
    with pytest.raises(ValueError, match="load"):
        Load(arrivals_s, bodies)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:80",
        "http://example.com:80",
        "https://127.0.0.1:80",
        "http://127.0.0.1",
        "nowhere",
    ],
)
def test_loads_go_to_this_machine_only(url):
    """A benchmark with a mistyped address is an attack on somebody."""
    with pytest.raises(MeasurementError, match=r"not this machine|needed"):
        Target.parse(url)


async def test_waiting_for_a_connection_is_the_clients_own_delay():
    """It would pass for the server's: the client would seem to have been in time."""
    load = Load([0.0] * 20, [raw(b"a")], connections=1)

    async with tiny_server(lambda _: response(200)) as (target, _):
        shots = await offer(load, target)

    in_turn = itertools.pairwise(shots)
    assert all(later.sent_s >= earlier.done_s for earlier, later in in_turn)


def test_localhost_is_this_machine():
    """Spelled out, so that nothing is resolved while measuring."""
    assert Target.parse("http://localhost:8000") == Target("127.0.0.1", 8000)


def test_run_returns_what_the_coroutine_does():
    """On uvloop or on asyncio's own loop."""

    async def answer():
        return 42

    assert run(answer()) == 42
