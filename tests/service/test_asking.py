"""Who asks an engine is answered by the deadline, and leaves nothing behind."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.asking import classify_decoded, classify_many
from service.contract import Settle
from service.errors import DeadlineExceededError, EngineFailedError

KEY = ("colors", 1)


class Hanging:
    """An engine of which nothing comes, unless the test says so."""

    settle: Settle
    deadline: float | None
    withdrawn = 0

    def submit(
        self, key: Any, images: Any, *, deadline: float | None, settle: Settle, **_: Any
    ) -> Callable[[], None]:
        """Take images, or pixels."""
        self.settle, self.deadline = settle, deadline
        return self._withdraw

    submit_decoded = submit

    def _withdraw(self) -> None:
        self.withdrawn += 1


@pytest.mark.parametrize("ask", [classify_many, classify_decoded])
async def test_what_is_not_settled_by_the_deadline_is_late(ask):
    """The rest keeps what became of it; the engine knows the deadline, too."""
    engine, soon = Hanging(), asyncio.get_running_loop().time() + 0.01
    failed = EngineFailedError("broken")

    asked = asyncio.create_task(ask(engine, KEY, [b""] * 2, deadline=soon))
    await asyncio.sleep(0)
    engine.settle(1, failed)
    late, other = await asked

    assert isinstance(late, DeadlineExceededError)
    assert other is failed
    assert (engine.deadline, engine.withdrawn) == (soon, 1)


async def test_what_is_settled_after_its_client_has_left_is_nobody_s():
    """A run that has begun cannot be withdrawn, and its end disturbs no lane."""
    engine = Hanging()

    asked = asyncio.create_task(classify_many(engine, KEY, [b""], deadline=None))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    engine.settle(0, EngineFailedError("broken"))

    assert engine.withdrawn == 1
