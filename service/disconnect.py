"""request that waits → **cancelled request**, when its client disconnects."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from service.exchange import ClientGoneError

# Listening for a disconnect costs a task and its cancellation; most small images are
# answered sooner than it could matter. A timer that never fires costs 1 µs.
LISTEN_AFTER_S = 0.005


class CancelOnDisconnect:
    """Cancels the block when the client has left.

    Raises on leaving the block:
        ClientGoneError
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._listener: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101, an ASGI application always runs in one
        self._task = task
        self._timer = loop.call_later(LISTEN_AFTER_S, self._start_listening)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        if self._gone and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise ClientGoneError from error

    def _start_listening(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # the body was read to its end; only trailers could come
        self._gone = True
        self._task.cancel()
