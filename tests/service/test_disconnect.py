"""A request that waits is cancelled when its client leaves, and by nothing after it."""

import asyncio

import pytest
from starlette.types import Message

from service import disconnect
from service.disconnect import CancelOnDisconnect
from service.exchange import ClientGoneError


class Client:
    """The client of one request, as ASGI tells of it."""

    def __init__(self) -> None:
        self._gone = asyncio.Event()
        self.listened = asyncio.Event()

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()

    async def receive(self) -> Message:
        """What ASGI calls so; the body was read before."""
        self.listened.set()
        await self._gone.wait()
        return {"type": "http.disconnect"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    """Listen from the next turn of the loop on."""
    monkeypatch.setattr(disconnect, "LISTEN_AFTER_S", 0)


async def turns() -> None:
    """Let all that is due run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def waiting(client: Client) -> None:
    """A request that waits for good."""
    async with CancelOnDisconnect(client.receive):
        await asyncio.Event().wait()


async def test_who_leaves_cancels_what_waits_for_him_and_no_more():
    """Its task goes on: a timeout further out would take the rest for its own."""
    client = Client()
    client.leave()

    with pytest.raises(ClientGoneError):
        await waiting(client)

    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


@pytest.mark.parametrize("listens", [False, True])
async def test_who_leaves_later_cancels_nothing(listens):
    """Nobody listens for it any more, whether that had begun or not."""
    client = Client()

    async with CancelOnDisconnect(client.receive):
        if listens:
            await client.listened.wait()
    client.leave()
    await turns()

    assert client.listened.is_set() == listens


async def test_what_is_cancelled_otherwise_is_not_told_as_a_client_that_left():
    """At the end of the process all tasks are."""
    client = Client()

    task = asyncio.create_task(waiting(client))
    await client.listened.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
