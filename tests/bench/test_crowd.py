"""one load → several client processes."""

import asyncio

import pytest

from bench.bodies import raw
from bench.crowd import offer_together, saturate_together, share
from bench.traffic import Load, constant_arrivals
from tests.bench.tiny_server import response, tiny_server

BODIES = [raw(b"a"), raw(b"b"), raw(b"c")]


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_sharing_a_load_loses_no_arrival(processes):
    """Dealt out in turn, so that every part is spread over the whole time."""
    load = Load(constant_arrivals(10, 1), BODIES, connections=4)

    parts = share(load, processes)

    together = sorted(instant for part in parts for instant in part.arrivals_s)
    assert together == load.arrivals_s
    assert all(sorted(p.bodies, key=str) == sorted(BODIES, key=str) for p in parts)
    assert all(part.connections >= 1 for part in parts)


async def test_processes_send_one_load_together():
    """Their shots count from the same zero: two processes, one order of arrival."""
    load = Load(constant_arrivals(20, 0.5), BODIES, connections=4)

    async with tiny_server(lambda _: response(200)) as (target, tiny):
        shots = await asyncio.to_thread(offer_together, load, target, processes=2)

    assert [shot.intended_s for shot in shots] == load.arrivals_s
    assert {shot.status for shot in shots} == {200}
    # the timers of the loop count whole milliseconds
    assert all(shot.sent_s >= shot.intended_s - 0.002 for shot in shots)
    assert len(tiny.bodies) == 10


async def test_processes_saturate_together():
    """Each keeps its share of the connections busy."""
    async with tiny_server(lambda _: response(200)) as (target, tiny):
        shots = await asyncio.to_thread(
            saturate_together, BODIES, target, connections=4, seconds=0.1, processes=2
        )

    assert tiny.connections == 4
    assert len(shots) == len(tiny.bodies)


async def test_a_process_that_takes_long_to_start_is_waited_for(tmp_path, monkeypatch):
    """As on a busy machine: its first requests would all come late, and at once."""
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    load = Load(constant_arrivals(20, 0.5), BODIES, connections=4)

    async with tiny_server(lambda _: response(200)) as (target, _):
        shots = await asyncio.to_thread(offer_together, load, target, processes=1)

    assert max(shot.sent_s - shot.intended_s for shot in shots) < 0.5
