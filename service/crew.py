"""one process → **several on one port**, where HTTP and not the model is the limit.

A network of 20 µs leaves one Python process as the bottleneck and the other cores idle.
The leader, which serves like any other, then starts a member a core. Each has a
listening socket of its own on the same port (SO_REUSEPORT): with one shared socket,
nearly every connection ends up in one process. The sockets belong to the leader, so
connections that arrive while a member is being replaced wait in its backlog. One that
dies again at once has none until its next start: the others get its connections.

On a CPU each member has an engine of its own. On a GPU all use the leader's, and the
members speak HTTP and decode: see `service/shared`. Once all of them do, the leader
closes its port, for lanes that wait for its interpreter let the device wait. Should all
members keep dying, it opens it again.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from classifier.hardware import available_cores
from service.address import Address
from service.contract import Loaded
from service.engine.engine import LaneEngine
from service.neighbors import Neighbors, page_path
from service.serving import Serving
from service.settings import Settings
from service.shared.host import Host
from service.shared.slots import Slots, open_memory, slot_bytes

# A member that dies at once is not restarted at full speed.
RESTART_AFTER_S = (0.1, 1.0, 5.0, 30.0)
LOOK_EVERY_S = 0.2  # whether the members serve
# Beyond the drain itself, for a member to end.
GRACE_S = 5.0


class Port(Protocol):
    """Of the process that leads."""

    def close_port(self) -> None:
        """Take no new connection."""

    async def open_port(self, listener: socket.socket) -> None:
        """Take connections again."""


def processes_wanted(settings: Settings, *, light: bool, shared: bool) -> int:
    """How many processes shall serve.

    Args:
        light: a model is so cheap that HTTP is the limit.
        shared: all will use one engine, whose device is faster than HTTP and decoding.
    """
    if settings.processes != "auto":
        return settings.processes
    pays = (light or shared) and hasattr(socket, "SO_REUSEPORT")
    return available_cores() if pays else 1


def shares_engine(settings: Settings, loaded: Sequence[Loaded]) -> bool:
    """Whether members use the leader's engine: a device is not for several."""
    if settings.engine == "auto":
        return any(model.device == "cuda" for model in loaded)
    return settings.engine == "shared"


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
        self._host: Host | None = None
        self._handing_over: asyncio.Task[None] | None = None

    async def taken(self, serving: Serving, server: Port) -> None:
        """Start the members, where more than one process pays."""
        light = self._engine.inline is not None and self._engine.inline.serves_any
        shared = shares_engine(self._settings, self._engine.loaded)
        processes = processes_wanted(self._settings, light=light, shared=shared)
        if processes == 1:
            return
        folder = Path(tempfile.mkdtemp(prefix="linnaeus-"))
        self._neighbors = Neighbors(folder, self.name, serving.metrics.page)
        await self._neighbors.open()
        serving.neighbors = self._neighbors
        if shared:
            orders = await self._share(folder, processes)
            hand_over = self._hand_over(self._neighbors, server, len(orders))
            self._handing_over = asyncio.create_task(hand_over)
        else:
            orders = self._divide(folder, processes)
        self._crew.start(orders)

    def _divide(self, folder: Path, processes: int) -> list[Order]:
        """Members with their own engines, and lanes for all of them alike."""
        wanted, share = self._settings.lanes, max(1, available_cores() // processes)
        lanes = share if wanted == "auto" else wanted
        self._engine.limit_lanes(lanes)
        self._log.info("crew", processes=processes, lanes_each=lanes)
        return [
            Order(number, folder, {"lanes": lanes}) for number in range(1, processes)
        ]

    async def _share(self, folder: Path, processes: int) -> list[Order]:
        """Members that use the engine of this process."""
        size = slot_bytes(loaded.manifest for loaded in self._engine.loaded)
        path, orders, memories = folder / "engine", [], {}
        for number in range(1, processes):
            memory = open_memory(self._settings.queue_capacity * size)
            memories[number] = Slots.of(memory, size)
            threads = max(1, available_cores() // processes)
            host = {"path": str(path), "slot_bytes": size, "threads": threads}
            orders.append(Order(number, folder, {}, host, memory))
        self._host = Host(self._engine, path, memories)
        await self._host.open()
        self._log.info("crew", processes=processes, engine="shared")
        return orders

    async def _hand_over(self, neighbors: Neighbors, server: Port, count: int) -> None:
        """Leave HTTP to the members once all of them serve, until none is left."""
        while True:
            while len(neighbors.others) < count:  # noqa: ASYNC110 - in other processes
                await asyncio.sleep(LOOK_EVERY_S)
            server.close_port()
            self._log.info("handed over", members=count)
            await self._crew.deserted.wait()
            try:
                await server.open_port(self._crew.address.listener())
                self._log.error("took the port back")
            except OSError as error:  # there is no socket to be had
                self._log.error("the port is lost", error=str(error))

    async def left(self) -> None:
        """Ask the members to drain, and wait for them."""
        if self._handing_over is not None:
            self._handing_over.cancel()
        self._crew.terminate()
        await self._crew.stopped()
        if self._host is not None:
            await self._host.close()
        if self._neighbors is not None:
            await self._neighbors.close()
            shutil.rmtree(self._neighbors.folder, ignore_errors=True)


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

    async def stopped(self) -> None:
        """Wait until every member is gone; those that will not go are killed."""
        if not self._keepers:
            return
        limit_s = self._settings.drain_notice_s + self._settings.drain_timeout_s
        _, late = await asyncio.wait(self._keepers, timeout=limit_s + GRACE_S)
        for process in self._members.values() if late else ():
            with suppress(ProcessLookupError):
                process.kill()

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
