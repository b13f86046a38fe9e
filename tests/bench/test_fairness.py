"""What the fairness benchmark counts as a failure, and what its rounds amount to."""

import asyncio

import pytest

from bench import wrk
from bench.bodies import batches, raw
from bench.fairness import Loads, count_failed, measure_rounds
from bench.goals import fairness
from bench.latency import BROKEN, EXPIRED, Shot
from bench.wrk import Closed
from tests.bench.tiny_server import response, tiny_server

IMAGES = [b"image of some sort", b"another"]


def test_whatever_was_not_answered_failed():
    """A service that refuses batches would be very fair to singles."""
    closed = [
        Closed(100.0, 100.0, 1.0, 2.0, 3.0, 4.0, failed=n, requests=9) for n in (0, 3)
    ]
    shots = [Shot(0.0, 0.0, 1.0, status) for status in (200, 503, BROKEN, EXPIRED)]

    assert count_failed(closed, shots) == 6


@pytest.mark.skipif(wrk.shutil.which("wrk") is None, reason="wrk is not installed")
async def test_every_round_is_in_the_record_and_judged():
    """A ratio with its spread, and the failures of all rounds."""
    singles, many = [raw(i) for i in IMAGES], batches(IMAGES, size=32)
    loads = Loads(singles, many, seconds=0.5, open_seconds=0.5)

    async with tiny_server(lambda _: response(200)) as (target, _):
        record = await asyncio.to_thread(
            measure_rounds, target, loads, rounds=2, share=0.02, seed=0
        )

    faster, slower, unanswered, failed = fairness(record)
    assert len(record["rounds"]) == len(faster.rounds) == len(slower.rounds) == 2
    assert faster.measured == record["batches_to_singles"] > 0
    assert slower.measured == record["p99_ratio"] > 0
    assert (unanswered.measured, failed.measured) == (0, 0)


@pytest.mark.skipif(wrk.shutil.which("wrk") is None, reason="wrk is not installed")
async def test_batches_that_are_all_refused_are_named():
    """As a slow model does, whose batch would take longer than a request may."""
    singles, many = [raw(i) for i in IMAGES], batches(IMAGES, size=32)
    loads = Loads(singles, many, seconds=0.5, open_seconds=0.5)

    def answer(body):
        return response(503 if body.startswith(b"--") else 200)

    async with tiny_server(answer) as (target, _):
        measuring = asyncio.to_thread(
            measure_rounds, target, loads, rounds=1, share=0.02, seed=0
        )
        with pytest.raises(wrk.WrkError, match="no answer to batches"):
            await measuring
