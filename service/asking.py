"""images → **awaited outcomes**: a task that asks an engine and waits.

A task that is cancelled here withdraws its request, so nothing is run for nobody.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from service.contract import Engine, ModelKey, Outcome, Settled
from service.errors import DeadlineExceededError

LATE = "the answer did not come before the deadline of this request"


async def classify_many(
    engine: Engine,
    key: ModelKey,
    images: Sequence[bytes],
    *,
    deadline: float | None,
    explain: bool = False,
) -> list[Settled]:
    """Run the images of one request, in order; a failure stands in its image's place.

    The engine looks at deadlines too, where that saves work; this is the promise to the
    client, which holds even if a run hangs: what is not settled by then is too late.

    Raises:
        ServiceError: the request as a whole is refused.
    """
    if not images:
        return []
    settled: list[Settled | None] = [None] * len(images)
    missing = len(images)
    done = asyncio.get_running_loop().create_future()

    def settle(position: int, fate: Settled) -> None:
        nonlocal missing
        settled[position] = fate
        missing -= 1
        if not missing and not done.done():
            done.set_result(None)

    withdraw = engine.submit(
        key, images, deadline=deadline, settle=settle, explain=explain
    )
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await done
    finally:
        if withdraw is not None:
            withdraw()
    late = DeadlineExceededError(LATE)
    return [late if fate is None else fate for fate in settled]


async def classify(
    engine: Engine,
    key: ModelKey,
    data: bytes,
    *,
    deadline: float | None,
    explain: bool = False,
) -> Outcome:
    """Run one image.

    Raises:
        ClassifierError: the image cannot be used.
        ServiceError: overloaded, draining, too late, or broken.
    """
    (settled,) = await classify_many(
        engine, key, [data], deadline=deadline, explain=explain
    )
    if not isinstance(settled, Outcome):
        raise settled
    return settled
