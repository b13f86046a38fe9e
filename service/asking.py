"""images → **awaited outcomes**: a task that asks an engine and waits.

A task that is cancelled here withdraws its request, so nothing is run for nobody.
"""

import asyncio
from collections.abc import Sequence

from service.contract import Engine, ModelKey, Outcome, Settled


async def classify_many(
    engine: Engine,
    key: ModelKey,
    images: Sequence[bytes],
    *,
    deadline: float | None,
    explain: bool = False,
) -> list[Settled]:
    """Run the images of one request, in order; a failure stands in its image's place.

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
        await done
    finally:
        if withdraw is not None:
            withdraw()
    return [fate for fate in settled if fate is not None]


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
