"""What the rounds of an overload amount to."""

import argparse
import asyncio

import pytest

from bench import wrk
from bench.goals import overload
from bench.overload import measure_rounds
from bench.service import Service
from bench.workloads import Workload
from tests.bench.tiny_server import response, tiny_server

OPTIONS = argparse.Namespace(
    clients=1,
    factor=0.02,
    rounds=2,
    seconds=0.5,
    deadline_ms=2000,
    connections=8,
    seed=0,
)


@pytest.mark.skipif(wrk.shutil.which("wrk") is None, reason="wrk is not installed")
async def test_every_round_is_in_the_record_and_judged(tmp_path):
    """This server is not overloaded at all: it answers the fiftieth that is offered."""
    workload = Workload("digits", (b"image of some sort",), tmp_path, connections=2)

    async with tiny_server(lambda _: response(200)) as (target, _):
        record = await asyncio.to_thread(
            measure_rounds, Service(target, None), workload, OPTIONS
        )

    goodput, late, otherwise, retry_after = overload(record)
    assert len(record["rounds"]) == len(goodput.rounds) == 2
    assert 0 < goodput.measured == record["of_capacity"] < 0.1
    for found in record["rounds"]:
        around = found["capacity_before_per_s"], found["capacity_after_per_s"]
        assert min(around) < found["capacity_per_s"] < max(around)
    assert (late.measured, otherwise.measured) == (0, 0)
    assert retry_after.rounds == ()  # nothing was refused


@pytest.mark.skipif(wrk.shutil.which("wrk") is None, reason="wrk is not installed")
async def test_a_service_that_answers_nothing_has_no_capacity(tmp_path):
    """Images that it cannot read, say: three times nothing would be offered."""
    workload = Workload("digits", (b"no image",), tmp_path, connections=2)

    async with tiny_server(lambda _: response(422)) as (target, _):
        measuring = asyncio.to_thread(
            measure_rounds, Service(target, None), workload, OPTIONS
        )
        with pytest.raises(wrk.WrkError, match="no answer to the closed loop"):
            await measuring
