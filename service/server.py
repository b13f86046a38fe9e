"""application → **process**: uvicorn, with a drain before it stops.

On SIGTERM or SIGINT uvicorn closes its port at once. Here readiness goes red first,
what was accepted is finished, late requests get a clear 503, and only then the port
closes. A second signal stops without waiting. A terminal that closes (SIGHUP) is a
first signal, too, however often it says so.
"""

import asyncio
import gc
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, Protocol

import uvicorn
from structlog.typing import FilteringBoundLogger

from classifier.errors import ClassifierError
from service.address import Address, bind, cannot_listen
from service.app import Application, create_app
from service.connection import BoundedConnection
from service.contract import Engine, LoadedModel
from service.door import Door
from service.engine.engine import LaneEngine
from service.errors import EngineFailedError, SettingsError
from service.fast_path import FastPath
from service.files import raise_descriptors
from service.heads import Heads
from service.leader import Leader
from service.logs import build_log, forwarded
from service.protocol import FastPathProtocol
from service.serving import Serving
from service.settings import Settings
from service.watchdog import LoopWatchdog

# After the drain nothing is left but answers on their way out.
STOP_S = 1


class Connection(BoundedConnection, FastPathProtocol):
    """uvicorn's protocol, with bounds on its bytes and a fast path for images."""

    def data_received(self, data: bytes) -> None:
        """Serve a request whose head is known, or parse."""
        if self.awaits_head() and self.serve_known(data):
            self.pass_head()
        else:
            super().data_received(data)


class Server(uvicorn.Server):
    """uvicorn for one application, which it drains."""

    def __init__(
        self, app: Application, log: FilteringBoundLogger, *, place: "Place"
    ) -> None:
        settings = app.serving.settings
        fast_path, heads = FastPath(app.serving, app.request_log), Heads()
        metrics = app.serving.metrics
        door = Door(settings.max_connections, metrics=metrics, log=log)
        timeout_s = settings.body_timeout_ms / 1e3
        connect = partial(Connection, fast_path, heads, door=door, timeout_s=timeout_s)
        super().__init__(
            uvicorn.Config(
                app,
                http=connect,  # type: ignore[arg-type]  # makes protocols
                proxy_headers=False,  # the client's address is not used
                lifespan="off",  # `startup` and `shutdown` below do it
                log_config=None,
                access_log=False,  # service/exchange.py has one line a request
                server_header=False,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=STOP_S,
            )
        )
        metrics.connections.watch(lambda: len(self.server_state.connections))
        self._serving = app.serving
        self._log = log
        self._place = place
        self._up = False  # the port is open, and the place is taken
        self._listeners: Sequence[socket.socket] = ()
        self._taking: set[asyncio.Task[Any]] = set()  # being accepted, of a backlog
        self._told = False  # by a signal that it is to end
        self._draining: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._watchdog = LoopWatchdog(settings.hang_timeout_s)
        self.failure: Exception | None = None
        self.left_behind = False  # some threads hang

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the engine, open the port, and say where."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._serving.start()
            self._place.check(self._serving.engine.loaded)
            if not self.should_exit:  # else a signal came first: the port stays closed
                gc.collect()
                gc.freeze()  # or each full collection goes through all that was loaded
                await self._take_place(sockets)
                self._up = True
        except (ClassifierError, SettingsError) as error:
            # kept for `serve`: uvicorn would print a stack and exit by itself
            self.failure, self.should_exit = error, True
        if not self._up:
            await self._serving.stop()  # what was loaded may have threads
        elif self.should_exit:  # a signal came meanwhile
            self.should_exit = False
            self.drain()

    async def _take_place(self, sockets: list[socket.socket] | None) -> None:
        """Open the port, and join the processes beside it. Raises SettingsError."""
        try:
            await self._listen(sockets)
        except OSError as error:  # another program has taken it meanwhile
            settings = self._serving.settings
            raise cannot_listen(settings.host, settings.port, error) from error
        self._listeners = sockets or ()
        if not (self.started and sockets):
            return
        await self._place.taken(self._serving, self)
        log, settings = self._log, self._serving.settings
        if not (settings.port or log.is_enabled_for(logging.INFO)):
            # a free port is to be found nowhere else
            log = build_log(settings.model_copy(update={"log_level": "info"}))
        url = Address.of(sockets[0]).url
        log.info("listening", url=url, process=self._place.name)
        self._watch = self._loop.create_task(self._leave_when_broken())
        self._watchdog.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, then the engine, unless that must not take time."""
        if self.force_exit:
            self._place.cut_off()
        else:
            self.close_port()
            await asyncio.gather(*self._taking, return_exceptions=True)
        await super().shutdown(sockets)
        await self._place.ended()
        if not self.force_exit:
            self.left_behind = bool(await self._serving.stop())
        self._watchdog.stop()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn, and SIGHUP where it would end the process: not under nohup."""
        hang_up = getattr(signal, "SIGHUP", None)
        with super().capture_signals():
            # uvicorn leaves signals alone in other threads, where they cannot be had
            main = threading.current_thread() is threading.main_thread()
            if hang_up and main and signal.getsignal(hang_up) is signal.SIG_DFL:
                signal.signal(hang_up, self._hang_up)
            yield

    def _hang_up(self, sig: int, frame: FrameType | None) -> None:
        if not self._told:  # kernel and shell may both send it
            self.handle_exit(sig, frame)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal; stop at the second, if that counts."""
        again, self._told = self._told, True
        if not self._up:
            self.should_exit = True  # seen by `startup`, which must come to its end
        elif not again:
            self.drain()
        elif self._place.stops_at_second_signal:
            self.should_exit = self.force_exit = True

    def close_port(self) -> None:
        """Take no new connection; those that are there, or wait to be, are served."""
        for listener, server in zip(self._listeners, self.servers, strict=True):
            if server.is_serving():
                self.take_waiting(listener)
            server.close()

    async def open_port(self, listener: socket.socket) -> None:
        """Take connections again, on this socket."""
        await self._listen([listener])
        self._listeners = [listener]

    def take_waiting(self, listener: socket.socket) -> None:
        """Serve the connections that wait in a backlog; with it they would be reset."""
        protocol: Any = self.config.http_protocol_class
        connect = partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        listener.setblocking(False)
        with suppress(OSError):  # at the end: nothing waits any more
            while True:
                connection, _ = listener.accept()
                connection.setblocking(False)
                taking = self._loop.create_task(
                    self._loop.connect_accepted_socket(connect, connection)
                )
                self._taking.add(taking)
                taking.add_done_callback(self._taking.discard)

    async def _listen(self, sockets: list[socket.socket] | None) -> None:
        """Listen here, for uvloop would not say that it could not."""
        for listener in sockets or ():
            listener.listen(self.config.backlog)
        await super().startup(sockets)

    def drain(self) -> None:
        """Begin to drain, unless that has begun."""
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain())

    async def _leave_when_broken(self) -> None:
        """End with an error, so that whoever has started this process does so again."""
        await self._serving.engine.broken()
        reason = self._serving.engine.unready()
        self._log.error("broken", reason=reason)
        self.failure = EngineFailedError(reason or "the engine was broken")
        self.drain()

    async def _drain(self) -> None:
        settings = self._serving.settings
        self._log.info("draining", timeout_s=settings.drain_timeout_s)
        leaving = asyncio.create_task(self._place.left())
        finished = await self._serving.drain(
            notice_s=settings.drain_notice_s, timeout_s=settings.drain_timeout_s
        )
        await leaving
        self._log.info("drained", finished=finished)
        self.should_exit = True


class Place(Protocol):
    """The role of a process among those on its port: leader or member."""

    name: str
    stops_at_second_signal: bool

    def check(self, loaded: Sequence[LoadedModel]) -> None:
        """Raises BundleChangedError or LeaderGoneError if it may not serve these."""

    async def taken(self, serving: Serving, server: Server) -> None:
        """The process serves now."""

    async def left(self) -> None:
        """The process drains now."""

    def cut_off(self) -> None:
        """The process ends now, in the middle of what it is at."""

    async def ended(self) -> None:
        """The process has no connections any more."""


def serve(settings: Settings, engine: LaneEngine) -> None:
    """Serve until a signal, in as many processes as the settings say.

    Raises:
        SettingsError: the address cannot be listened on, the default model is none, or
            there is no folder for the sockets of several processes or no memory for
            them to share.
        ClassifierError: a bundle or the device is refused.
        EngineFailedError: lanes hang, or run nothing any more, or nobody waited for
            what they run; only a new process helps.
    """
    log = build_log(settings)
    raise_descriptors()
    shared = settings.processes != 1
    with ExitStack() as held:
        listener = held.enter_context(
            closing(bind(settings.host, settings.port, shared=shared))
        )
        try:
            held.enter_context(Address.of(listener).claimed())
        except OSError as error:
            raise cannot_listen(settings.host, settings.port, error) from error
        serve_on(listener, settings, engine, Leader(settings, engine, listener, log))


def serve_on(
    listener: socket.socket, settings: Settings, engine: Engine, place: Place
) -> None:
    """Serve on a socket that is bound, until a signal. Raises as `serve`."""
    log = build_log(settings)
    app = create_app(settings, engine, log=log)
    server = Server(app, log, place=place)
    with forwarded(log):
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure
    if server.force_exit:
        raise EngineFailedError("a second signal: what was at work was left behind")
    if server.left_behind:
        raise EngineFailedError("a run or a decoder hangs and was left behind")
