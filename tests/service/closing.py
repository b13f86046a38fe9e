"""engine that decodes ahead → **what its senders hear** when it closes meanwhile."""

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from service.contract import Engine, ModelKey
from service.engine.decoding import decode_ticket
from tests.synthetic import png


@dataclass(frozen=True)
class Closing:
    """The kinds of what was settled."""

    told: list[type]  # once it was closed
    fates: list[type]  # once the decoding that was at work was over, too


async def close_while_decoding(
    engine: Engine,
    key: ModelKey,
    *,
    in_line: int,
    monkeypatch: pytest.MonkeyPatch,
) -> Closing:
    """Close with one image at work, so many in line for it, and one just come."""
    fates: list[type] = []
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def held(*given: Any, **named: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(20)
        return decode_ticket(*given, **named)

    def submit(images: int) -> None:
        engine.submit(
            key,
            [png((9, 9, 9))] * images,
            deadline=None,
            settle=lambda _, fate: fates.append(type(fate)),
        )

    monkeypatch.setattr("service.engine.ahead.decode_ticket", held)
    submit(1)
    submit(in_line)
    await begun.wait()
    submit(1)
    await engine.close()
    told = list(fates)
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("decode"):
            await asyncio.to_thread(thread.join, 20)
    await asyncio.sleep(0)
    return Closing(told, fates)
