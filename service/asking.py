"""images or pixels → **awaited outcomes**: a task that asks an engine and waits.

A task that is cancelled here withdraws its request, so nothing is run for nobody.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from classifier.preprocess import Pixels
from service.contract import (
    Engine,
    ModelKey,
    Outcome,
    Settle,
    Settled,
    Withdraw,
    outcome_of,
)
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

    Raises:
        ServiceError: the request as a whole is refused.
    """

    def submit(settle: Settle) -> Withdraw | None:
        return engine.submit(
            key, images, deadline=deadline, settle=settle, explain=explain
        )

    return await _settled(len(images), submit, deadline)


async def classify_decoded(
    engine: Engine,
    key: ModelKey,
    pixels: Sequence[Pixels],
    *,
    deadline: float | None,
) -> list[Settled]:
    """`classify_many` for what is pixels already, uint8 [H, W, C] each."""

    def submit(settle: Settle) -> Withdraw:
        return engine.submit_decoded(key, pixels, deadline=deadline, settle=settle)

    return await _settled(len(pixels), submit, deadline)


async def _settled(
    count: int, submit: Callable[[Settle], Withdraw | None], deadline: float | None
) -> list[Settled]:
    """Wait for what becomes of so many images.

    The engine looks at deadlines too, where that saves work; this is the promise to the
    client, which holds even if a run hangs: what is not settled by then is too late.
    """
    if not count:
        return []
    settled: list[Settled | None] = [None] * count
    missing = count
    done = asyncio.get_running_loop().create_future()

    def settle(position: int, fate: Settled) -> None:
        nonlocal missing
        settled[position] = fate
        missing -= 1
        if not missing and not done.done():
            done.set_result(None)

    withdraw = submit(settle)
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
    return outcome_of(settled)
