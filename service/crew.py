"""orders → **members that live**: processes beside the leader's, started again.

`service/leader.py` tells what they are for, `service/member.py` what they do.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from service.address import Address
from service.neighbors import page_path
from service.settings import Settings

# A member that dies at once is not restarted at full speed.
RESTART_AFTER_S = (0.1, 1.0, 5.0, 30.0)
# Beyond the drain itself, for a member to end.
GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a member is started with."""

    number: int
    folder: Path
    changes: Mapping[str, object]  # of the settings
    host: Mapping[str, object] | None = None  # where the engine is, if not its own
    memory: int | None = None  # descriptor of the slots that it shares with the host

    def said(self, settings: Settings, listener: int) -> dict[str, object]:
        """The line that the member reads."""
        return {
            "settings": settings.model_dump(mode="json") | dict(self.changes),
            "listener": listener,
            "number": self.number,
            "folder": str(self.folder),
            "host": self.host,
            "memory": self.memory,
        }


class Crew:
    """The members that a leader has started."""

    def __init__(
        self, settings: Settings, listener: socket.socket, log: FilteringBoundLogger
    ) -> None:
        self._settings = settings
        self.address = Address.of(listener)
        self.deserted = asyncio.Event()  # no member has a listener
        self._listening: set[int] = set()  # members that have one
        self._log = log
        self._members: dict[int, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    def start(self, orders: Sequence[Order]) -> None:
        """Start a process for each order, and keep them up."""
        loop = asyncio.get_running_loop()
        self._keepers += [loop.create_task(self._keep(order)) for order in orders]

    def terminate(self) -> None:
        """Ask every member to drain."""
        self._stopping.set()
        for process in self._members.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every member at once, whatever it is at."""
        for process in self._members.values():
            with suppress(ProcessLookupError):
                process.kill()

    async def stopped(self) -> None:
        """Wait until every member is gone; those that will not go are killed."""
        if not self._keepers:
            return
        limit_s = self._settings.drain_notice_s + self._settings.drain_timeout_s
        _, late = await asyncio.wait(self._keepers, timeout=limit_s + GRACE_S)
        if late:
            self.kill()

    async def _keep(self, order: Order) -> None:
        """Run one member; start it again when it dies."""
        loop, deaths = asyncio.get_running_loop(), 0
        listener: socket.socket | None = None
        with ExitStack() as sockets:
            while not self._stopping.is_set():
                began = loop.time()
                try:
                    if listener is None:
                        listener = sockets.enter_context(self.address.listener())
                        self._listening.add(order.number)
                        self.deserted.clear()
                    end: dict[str, object] = {"code": await self._run(order, listener)}
                except OSError as error:  # there is no process or socket to be had
                    end = {"error": str(error)}
                if self._stopping.is_set():
                    return
                lived_s = loop.time() - began
                deaths = 1 if lived_s > RESTART_AFTER_S[-1] else deaths + 1
                wait_s = RESTART_AFTER_S[min(deaths, len(RESTART_AFTER_S)) - 1]
                self._log.error(
                    "member died", member=order.number, **end, again_s=wait_s
                )
                if deaths > 1:  # too long to wait for in its backlog
                    sockets.close()
                    listener = None
                    self._listening.discard(order.number)
                    if not self._listening:
                        self.deserted.set()
                await self._rest(wait_s)

    async def _rest(self, wait_s: float) -> None:
        """Wait, but not beyond the end of the crew."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()

    async def _run(self, order: Order, listener: socket.socket) -> int:
        descriptors = [listener.fileno()]
        if order.memory is not None:
            descriptors.append(order.memory)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "service.member"),
            stdin=asyncio.subprocess.PIPE,  # its end tells the member that we are gone
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for the leader, who passes it on
        )
        self._members[order.number] = process
        if self._stopping.is_set():  # the others were told while it was being started
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        try:
            if process.stdin is not None:
                said = order.said(self._settings, listener.fileno())
                process.stdin.write(json.dumps(said).encode() + b"\n")
            return await process.wait()
        finally:
            del self._members[order.number]
            # of one that was killed: it would be taken for one that serves
            page_path(order.folder, f"member-{order.number}").unlink(missing_ok=True)
