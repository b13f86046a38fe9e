"""waiting → **answer, or nobody to give it to**: disconnects and deadlines."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from service.errors import DeadlineExceededError
from service.exchange import ClientGoneError

# Listening for a disconnect costs a task and its cancellation; most small images are
# answered sooner than it could matter. A timer that never fires costs 1 µs.
LISTEN_AFTER_S = 0.005


class Patience:
    """Cancels the block when the client has left or the deadline has passed.

    The engine looks at deadlines too, where that saves work; this is the promise to
    the client, which holds even if a run hangs. `deadline` is an instant of the loop's
    clock.

    Raises on leaving the block:
        ClientGoneError, DeadlineExceededError
    """

    def __init__(self, receive: Receive, *, deadline: float) -> None:
        self._receive = receive
        self._deadline = deadline
        self._listener: asyncio.Task[None] | None = None
        self._ended_by: Exception | None = None

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
        if self._ended_by is not None and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise self._ended_by from error

    def _start_listening(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                while (await self._receive())["type"] != "http.disconnect":
                    pass  # the body was read to its end; only trailers could come
        except TimeoutError:
            self._ended_by = DeadlineExceededError(
                "the answer did not come before the deadline of this request"
            )
        else:
            self._ended_by = ClientGoneError()
        self._task.cancel()
