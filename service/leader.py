"""one process → **several on one port**, where HTTP and not the model is the limit.

A network of 20 µs leaves one Python process as the bottleneck and the other cores idle.
If all that are loaded are so cheap, the leader, which serves like any other, starts a
member a core. Each has a listening socket of its own on the same port (SO_REUSEPORT):
with one shared socket, nearly every connection ends up in one process. The sockets
belong to the leader, which takes the connections that arrive while a member is being
replaced. One that dies again at once has none until its next start: the others get its
connections.

On a CPU each member has an engine of its own. On a GPU all use the leader's, and the
members speak HTTP and decode: see `service/shared`. Once all of them do, the leader
closes its port: lanes that wait for the interpreter's lock would leave the device idle.
Should all members keep dying, it opens it again.
"""

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from classifier.hardware import available_cores
from service.contract import LoadedModel
from service.crew import LOOK_EVERY_S, Crew
from service.engine.engine import LaneEngine
from service.errors import SettingsError
from service.neighbors import Neighbors, page_path
from service.order import Order, fingerprints
from service.serving import Serving
from service.settings import Settings
from service.shared.host import Host
from service.shared.slots import Slots, open_memory, slot_bytes

# Bytes of a Unix socket's path, everywhere: macOS has 104 with the zero at its end.
MAX_SOCKET_PATH = 103
LONGEST_NAME = "member-9999"
SHORT_FOLDER = "/tmp"  # noqa: S108 - the folder made there is private
PREFIX = "linnaeus-"
# Bytes that TMPDIR may have: `mkdtemp` adds eight characters to the prefix.
MAX_TMPDIR = MAX_SOCKET_PATH - len(
    os.fsencode(page_path(Path(f"/{PREFIX}12345678"), LONGEST_NAME))
)
MIB = 1024 * 1024


class Port(Protocol):
    """Of the process that leads."""

    def close_port(self) -> None:
        """Take no new connection."""

    async def open_port(self, listener: socket.socket) -> None:
        """Take connections again."""

    def take_waiting(self, listener: socket.socket) -> None:
        """Serve the connections that wait in a backlog."""


def processes_wanted(settings: Settings, *, light: bool, shared: bool) -> int:
    """How many processes shall serve.

    Args:
        light: every model is so cheap that HTTP is the limit.
        shared: all will use one engine, whose device is faster than HTTP and decoding.
    """
    if settings.processes != "auto":
        return settings.processes
    pays = (light or shared) and hasattr(socket, "SO_REUSEPORT")
    return available_cores() if pays else 1


def lanes_each(settings: Settings, processes: int) -> int:
    """How many lanes each of so many processes has, if it has an engine of its own."""
    if settings.lanes != "auto":
        return settings.lanes
    return cores_each(processes)


def cores_each(processes: int) -> int:
    """How many cores each of so many has: lanes, or where one has these, decoders."""
    return max(1, available_cores() // processes)


def slots_wanted(settings: Settings, models: int) -> int:
    """Images that a process may have under way in the engine of another.

    Singles and batches of each model have their room, as in the backlog.
    """
    return 2 * models * settings.queue_capacity


def shares_engine(settings: Settings, *, on_gpu: bool) -> bool:
    """Whether members use the leader's engine: a device is not for several."""
    if settings.engine == "auto":
        return on_gpu
    return settings.engine == "shared"


def socket_folder() -> Path:
    """A private folder for the sockets of a service, whose paths may not be long.

    Raises:
        SettingsError: there is no place for one.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        if len(os.fsencode(page_path(folder, LONGEST_NAME))) <= MAX_SOCKET_PATH:
            return folder
        folder.rmdir()
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=SHORT_FOLDER))
    except OSError as error:
        raise no_folder(error) from error


def no_folder(error: OSError) -> SettingsError:
    """Why the processes of a service cannot reach each other."""
    return SettingsError(
        f"cannot keep the sockets of several processes in a temporary folder: {error}; "
        "set TMPDIR to one that can be written and whose name is short, at most "
        f"{MAX_TMPDIR} bytes, or LINNAEUS_PROCESSES=1"
    )


def no_memory(error: OSError, size: int) -> SettingsError:
    """Why members cannot share an engine."""
    return SettingsError(
        f"cannot share {size / MIB:.0f} MiB with each of several processes: {error}; "
        "set LINNAEUS_QUEUE_CAPACITY lower, or LINNAEUS_PROCESSES=1"
    )


class Leader:
    """The first process: serves, and keeps the others up."""

    name = "leader"
    stops_at_second_signal = True  # and then takes its members along

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
        self._left_to_members: Port | None = None  # the port, while it is closed here
        self._began = time.monotonic()  # to load

    def check(self, loaded: Sequence[LoadedModel]) -> None:
        """Nothing to compare with: members compare theirs with what it has loaded."""

    async def taken(self, serving: Serving, server: Port) -> None:
        """Start the members, where more than one process pays.

        Raises:
            SettingsError: there is no folder for their sockets, or no memory to share.
        """
        loaded_s = time.monotonic() - self._began
        light = self._engine.inline is not None and self._engine.inline.serves_all
        on_gpu = any(model.device == "cuda" for model in self._engine.loaded)
        shared = shares_engine(self._settings, on_gpu=on_gpu)
        processes = processes_wanted(self._settings, light=light, shared=shared)
        serving.metrics.processes_wanted.watch(lambda: processes)
        if processes == 1:
            return
        async with AsyncExitStack() as undo:
            folder = socket_folder()
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            neighbors = Neighbors(
                folder, self.name, serving.metrics.page, serving.engine.unready
            )
            undo.push_async_callback(neighbors.close)
            try:
                await neighbors.open()
                if shared:
                    orders = await self._share(folder, processes)
                else:
                    orders = self._divide(folder, processes)
            except OSError as error:
                raise no_folder(error) from error
            undo.pop_all()
        self._neighbors = serving.neighbors = neighbors
        if shared:
            hand_over = self._hand_over(neighbors, server, len(orders))
            self._handing_over = asyncio.create_task(hand_over)
        self._crew.start(orders, take=server.take_waiting, loaded_s=loaded_s)

    def _divide(self, folder: Path, processes: int) -> list[Order]:
        """Members with their own engines, and lanes for all of them alike."""
        lanes = lanes_each(self._settings, processes)
        self._engine.limit_lanes(lanes)
        self._log.info("crew", processes=processes, lanes_each=lanes)
        bundles, precisions = self._fingerprints(), self._precisions()
        return [
            Order(number, folder, {"lanes": lanes}, bundles, precisions=precisions)
            for number in range(1, processes)
        ]

    def _fingerprints(self) -> dict[str, str]:
        """Of what this process has loaded; its members must have the same."""
        return fingerprints([loaded.manifest for loaded in self._engine.loaded])

    def _precisions(self) -> dict[str, str]:
        loaded = self._engine.loaded
        return {model.manifest.full_name: model.precision for model in loaded}

    async def _share(self, folder: Path, processes: int) -> list[Order]:
        """Members that use the engine of this process.

        Raises:
            SettingsError: there is no memory to share.
            OSError: the socket of the engine cannot be opened.
        """
        size = slot_bytes(loaded.manifest for loaded in self._engine.loaded)
        count = slots_wanted(self._settings, len(self._engine.loaded))
        path, orders, memories = folder / "engine", [], {}
        bundles = self._fingerprints()
        for number in range(1, processes):
            try:
                memory = open_memory(count * size)
                memories[number] = Slots.of(memory, size)
            except OSError as error:
                raise no_memory(error, count * size) from error
            threads = cores_each(processes)
            host = {"path": str(path), "slot_bytes": size, "threads": threads}
            orders.append(Order(number, folder, {}, bundles, host=host, memory=memory))
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
            self._left_to_members = server
            self._log.info("handed over", members=count)
            await self._crew.deserted.wait()
            await self._take_back()

    async def _take_back(self) -> None:
        """Serve on the port again, if it was left to the members."""
        server, self._left_to_members = self._left_to_members, None
        if server is None:
            return
        try:
            with ExitStack() as undo:
                listener = undo.enter_context(self._crew.address.listener())
                await server.open_port(listener)
                undo.pop_all()
            self._log.error("took the port back")
        except OSError as error:  # there is no socket to be had
            self._log.error("the port is lost", error=str(error))

    async def left(self) -> None:
        """Ask the members to drain, and wait for them."""
        loop = asyncio.get_running_loop()
        notice_ends = loop.time() + self._settings.drain_notice_s
        if self._handing_over is not None:
            self._handing_over.cancel()
        self._crew.terminate()
        await self._crew.stopped()
        if loop.time() < notice_ends:  # all have died, and images still come
            await self._take_back()

    def cut_off(self) -> None:
        """Take the members along: they would serve nobody, and hold the port."""
        self._crew.kill()

    async def ended(self) -> None:
        """Let the members go, with what they have counted: nobody asks for it now."""
        if self._host is not None:
            await self._host.close()
        if self._neighbors is not None:
            await self._neighbors.close()
            shutil.rmtree(self._neighbors.folder, ignore_errors=True)
