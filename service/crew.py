"""orders → **members that live**: processes beside the leader's, started again.

`service/leader.py` tells what they are for, `service/member.py` what they do.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from service.address import Address
from service.neighbors import READY, READY_TIMEOUT_S, ask
from service.order import REFUSED, Order
from service.settings import Settings
from service.watchdog import SILENT_LOOKS

# A member that dies at once is not restarted at full speed.
RESTART_AFTER_S = (0.1, 1.0, 5.0, 30.0)
# Where a member's bundles are not the leader's, only a restart of the service helps, or
# whoever puts the old ones back: one look in a while will do.
REFUSED_AGAIN_S = 300.0
# For a member to end, beyond the time that its drain may take.
GRACE_S = 5.0
LOOK_EVERY_S = 0.2  # to see whether a member that loads has begun to serve
# A member may load for so long, and for so many times as long as its leader did, which
# was alone then. Nobody waits for it meanwhile; killed too early, it would never serve.
LEAST_LOADING_S, LOADING_TIMES = 60.0, 10

Take = Callable[[socket.socket], None]


class Crew:
    """The members that a leader has started."""

    def __init__(
        self, settings: Settings, listener: socket.socket, log: FilteringBoundLogger
    ) -> None:
        self.address = Address.of(listener)
        # of port 0, the one that was free is that of all
        port = self.address.name[1]
        self._settings = settings.model_copy(update={"port": port})
        self.deserted = asyncio.Event()  # no member has a listener
        self._listeners: dict[int, socket.socket] = {}  # by the member's number
        self._taken_here: set[int] = set()  # whose connections are served here
        self._log = log
        self._members: dict[int, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._loading_s = LEAST_LOADING_S

    def start(
        self, orders: Sequence[Order], *, take: Take, loaded_s: float = 0.0
    ) -> None:
        """Start a process for each order, and keep them up.

        `take` serves here what waits in the backlog of a member that is gone. The
        leader itself has `loaded_s` long.
        """
        self._take = take
        hang_s = self._settings.hang_timeout_s
        self._loading_s = max(hang_s, LEAST_LOADING_S, LOADING_TIMES * loaded_s)
        loop = asyncio.get_running_loop()
        self._keepers += [loop.create_task(self._keep(order)) for order in orders]

    def terminate(self) -> None:
        """Ask every member to drain, and leave their ports to them.

        A connection would wait in ours for a member that has closed its own. One that
        still loads holds its port until its end, and serves nobody: we do meanwhile.
        """
        self._stopping.set()
        for number in self._listeners.keys() - self._taken_here:
            self._close(number)
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
        while not self._stopping.is_set():
            began = loop.time()
            try:
                end: dict[str, object] = {"code": await self._run(order)}
            except OSError as error:  # there is no process or socket to be had
                end = {"error": str(error)}
            if self._stopping.is_set():
                break
            lived_s = loop.time() - began
            deaths = 1 if lived_s > RESTART_AFTER_S[-1] else deaths + 1
            wait_s = RESTART_AFTER_S[min(deaths, len(RESTART_AFTER_S)) - 1]
            refused = end.get("code") == REFUSED
            if refused:
                wait_s = REFUSED_AGAIN_S
            event = "member refuses" if refused else "member died"
            self._log.error(event, member=order.number, **end, again_s=wait_s)
            if refused or deaths > 1:
                # until its next start is too long to serve its connections here
                self._close(order.number)
                if not self._listeners:
                    self.deserted.set()
            elif (listener := self._listeners.get(order.number)) and _listens(listener):
                loop.add_reader(listener, self._take, listener)
                self._taken_here.add(order.number)
            await self._rest(wait_s)
        self._close(order.number)

    def _listener(self, number: int) -> socket.socket:
        """The socket of that member, which outlives it."""
        if number not in self._listeners:
            self._listeners[number] = self.address.listener()
            self.deserted.clear()
        return self._listeners[number]

    def _close(self, number: int) -> None:
        """Close a member's listener: the kernel then gives connections to the others.

        If no process accepts from it, what waits in its backlog is served here first.
        """
        self._take_no_longer(number)
        listener = self._listeners.pop(number, None)
        if listener is None:
            return
        if number not in self._members:
            self._take(listener)
        listener.close()

    def _take_no_longer(self, number: int) -> None:
        """Leave a member's connections to it."""
        if number in self._taken_here:
            self._taken_here.remove(number)
            asyncio.get_running_loop().remove_reader(self._listeners[number])

    async def _rest(self, wait_s: float) -> None:
        """Wait, or until the crew shall stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()

    async def _run(self, order: Order) -> int:
        listener = self._listener(order.number)
        descriptors = [listener.fileno()]
        if order.memory is not None:
            descriptors.append(order.memory)
        said = order.said(self._settings, listener.fileno())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            # -P: a folder from which a service is started may hold a `service/`, too
            *("-P", "-m", "service.member", str(order.folder)),
            stdin=asyncio.subprocess.PIPE,  # its end tells the member that we are gone
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())},
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for the leader, who passes it on
        )
        self._members[order.number] = process
        if self._stopping.is_set():  # the others were told while it was being started
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        watch = asyncio.create_task(self._watch(order, process, listener))
        try:
            assert process.stdin is not None  # noqa: S101, a pipe was asked for
            with suppress(RuntimeError):  # of uvloop, where it has died already
                process.stdin.write(json.dumps(said).encode() + b"\n")
            return await process.wait()
        finally:
            watch.cancel()
            del self._members[order.number]
            # a killed member leaves its socket, and would seem to serve
            order.page.unlink(missing_ok=True)

    async def _watch(
        self,
        order: Order,
        process: asyncio.subprocess.Process,
        listener: socket.socket,
    ) -> None:
        """Stand in for a member until it serves; kill it when it hangs."""
        if await self._begins_to_serve(order.page):
            if self._listeners.get(order.number) is listener:
                self._take_no_longer(order.number)
            silent = 0
            while silent < SILENT_LOOKS:
                await asyncio.sleep(self._settings.hang_timeout_s / SILENT_LOOKS)
                if not order.page.exists():  # it drains
                    return
                silent = 0 if await _answers(order.page) else silent + 1
        self._log.error("member hangs", member=order.number)
        with suppress(ProcessLookupError):
            process.kill()

    async def _begins_to_serve(self, page: Path) -> bool:
        """Wait for that; False if a member hangs while it loads.

        Looks are counted: by the clock, all would hang when a machine stood still.
        """
        for _ in range(max(1, int(self._loading_s / LOOK_EVERY_S))):
            if page.exists():  # noqa: ASYNC240 - made by another process
                return True
            await asyncio.sleep(LOOK_EVERY_S)
        return False


def _listens(listener: socket.socket) -> bool:
    """Whether a member has begun to listen on it. Before, nobody can have connected,
    and for a socket of this kind a loop is called again and again.
    """
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _import_path() -> list[str]:
    """Where a member finds what this process finds; `""` is the folder it is in."""
    return [entry or str(Path.cwd()) for entry in sys.path]


async def _answers(path: Path) -> bool:
    """Whether that process answers, which it does while its event loop runs."""
    try:
        await ask(path, READY, timeout_s=READY_TIMEOUT_S)
    except TimeoutError:
        return False
    except OSError:  # it ends, or this process has no descriptor: no sign of silence
        return True
    return True
