"""one process → **several on one port**, where HTTP and not the model is the limit.

A network of 20 µs leaves one Python process as the bottleneck and the other cores idle.
The leader, which serves like any other, then starts a member a core. Each has a
listening socket of its own on the same port (SO_REUSEPORT): with one shared socket,
nearly every connection ends up in one process. The sockets belong to the leader, so
connections that arrive while a member is being replaced wait in its backlog.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from classifier.hardware import available_cores
from service.engine.engine import LaneEngine
from service.neighbors import Neighbors
from service.serving import Serving
from service.settings import Settings

# A member that dies at once is not restarted at full speed.
RESTART_AFTER_S = (0.1, 1.0, 5.0, 30.0)
# Beyond the drain itself, for a member to end.
GRACE_S = 5.0


def reusable(listener: socket.socket) -> socket.socket:
    """Another socket on the same address; the kernel spreads connections over both."""
    twin = socket.socket(listener.family, listener.type)
    twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    twin.bind(listener.getsockname())
    return twin


def processes_wanted(settings: Settings, *, light: bool) -> int:
    """How many processes shall serve; `light` says whether HTTP is the limit."""
    if settings.processes != "auto":
        return settings.processes
    return available_cores() if light and hasattr(socket, "SO_REUSEPORT") else 1


class Leader:
    """The first process: serves, and keeps the others up."""

    name = "leader"

    def __init__(
        self,
        settings: Settings,
        engine: LaneEngine,
        listener: socket.socket,
        log: FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._crew = Crew(settings, listener, log)
        self._log = log
        self._neighbors: Neighbors | None = None

    async def taken(self, serving: Serving, drain: Callable[[], None]) -> None:
        """Start the members, where more than one process pays."""
        light = self._engine.inline is not None and self._engine.inline.serves_any
        processes = processes_wanted(self._settings, light=light)
        if processes == 1:
            return
        wanted, share = self._settings.lanes, max(1, available_cores() // processes)
        lanes = share if wanted == "auto" else wanted
        self._engine.limit_lanes(lanes)
        folder = Path(tempfile.mkdtemp(prefix="linnaeus-"))
        self._neighbors = Neighbors(folder, self.name, serving.metrics.page)
        await self._neighbors.open()
        serving.neighbors = self._neighbors
        self._crew.start(processes - 1, lanes=lanes, folder=folder)
        self._log.info("crew", processes=processes, lanes_each=lanes)

    async def left(self) -> None:
        """Ask the members to drain, and wait for them."""
        self._crew.terminate()
        await self._crew.stopped()
        if self._neighbors is not None:
            await self._neighbors.close()
            shutil.rmtree(self._neighbors.folder, ignore_errors=True)


class Crew:
    """The members that a leader has started."""

    def __init__(
        self, settings: Settings, listener: socket.socket, log: FilteringBoundLogger
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._log = log
        self._members: dict[int, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self, members: int, *, lanes: int, folder: Path) -> None:
        """Start `members` processes, each with its share of lanes, and keep them up."""
        loop = asyncio.get_running_loop()
        for number in range(1, members + 1):
            twin = reusable(self._listener)
            twin.set_inheritable(True)
            order = {
                "settings": self._settings.model_dump(mode="json") | {"lanes": lanes},
                "listener": twin.fileno(),
                "number": number,
                "folder": str(folder),
            }
            self._keepers.append(loop.create_task(self._keep(number, twin, order)))

    def terminate(self) -> None:
        """Ask every member to drain."""
        self._stopping = True
        for process in self._members.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def stopped(self) -> None:
        """Wait until every member is gone; those that will not go are killed."""
        if not self._keepers:
            return
        limit_s = self._settings.drain_notice_s + self._settings.drain_timeout_s
        _, late = await asyncio.wait(self._keepers, timeout=limit_s + GRACE_S)
        for process in self._members.values() if late else ():
            with suppress(ProcessLookupError):
                process.kill()

    async def _keep(
        self, number: int, listener: socket.socket, order: dict[str, object]
    ) -> None:
        """Run one member; start it again when it dies."""
        loop, deaths = asyncio.get_running_loop(), 0
        with listener:
            while not self._stopping:
                began = loop.time()
                code = await self._run(number, listener, order)
                if self._stopping:
                    return
                lived_s = loop.time() - began
                deaths = 1 if lived_s > RESTART_AFTER_S[-1] else deaths + 1
                wait_s = RESTART_AFTER_S[min(deaths, len(RESTART_AFTER_S)) - 1]
                self._log.error("member died", member=number, code=code, again_s=wait_s)
                await asyncio.sleep(wait_s)

    async def _run(
        self, number: int, listener: socket.socket, order: dict[str, object]
    ) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "service.member"),
            stdin=asyncio.subprocess.PIPE,  # its end tells the member that we are gone
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=(listener.fileno(),),
            start_new_session=True,  # Ctrl-C is for the leader, who passes it on
        )
        self._members[number] = process
        try:
            if process.stdin is not None:
                process.stdin.write(json.dumps(order).encode() + b"\n")
            return await process.wait()
        finally:
            del self._members[number]
