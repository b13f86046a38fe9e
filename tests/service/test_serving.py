"""What all routes share: a drain ends with the last request, and not before."""

import asyncio
from types import SimpleNamespace

import pytest

from service.metrics import Metrics
from service.serving import Serving
from service.settings import Settings


@pytest.fixture
def serving() -> Serving:
    """Of an engine that is ready."""
    return Serving(Settings(), SimpleNamespace(unready=lambda: None), Metrics())


async def test_a_drain_waits_for_the_request_at_work_though_all_was_idle_before(
    serving,
):
    """Every service has answered its last request for now many times a day."""
    with serving:
        pass
    serving.enter()
    drain = asyncio.create_task(serving.drain(notice_s=0, timeout_s=20))
    for _ in range(10):
        await asyncio.sleep(0)
    ended_early = drain.done()
    serving.leave()

    assert await drain
    assert not ended_early
