"""order of a leader → **one more process** on its port; see `service/leader.py`."""

import asyncio
import json
import os
import select
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from classifier.errors import ClassifierError
from service.bundles import find_bundles
from service.contract import Engine, LoadedModel
from service.engine.engine import LaneEngine
from service.errors import (
    BundleChangedError,
    EngineFailedError,
    LeaderGoneError,
    SettingsError,
)
from service.leader import PREFIX
from service.logs import build_log
from service.neighbors import Neighbors
from service.order import REFUSED, check_same
from service.server import Server, serve_on
from service.serving import Serving
from service.settings import Settings, load_settings
from service.shared.front import SharedEngine
from service.shared.slots import Slots

PIPE = 0  # the leader alone has its other end, and writes an order, no more


class Member:
    """A process that a leader has started; it drains when the leader is gone."""

    # A signal to all processes of a service comes to a member twice: from its sender,
    # and from the leader. One that shall end at once is killed by the leader.
    stops_at_second_signal = False

    def __init__(self, name: str, folder: Path, bundles: Mapping[str, str]) -> None:
        self.name = name
        self._bundles = bundles
        self._folder = folder
        self._neighbors: Neighbors | None = None

    def check(self, loaded: Sequence[LoadedModel]) -> None:
        """Whether this process may take its part of the port, after it has loaded.

        Raises:
            LeaderGoneError: the port is not the service's any more.
            BundleChangedError: they are not what the leader has loaded. They may have
                been written anew since `run` has looked.
        """
        if leader_is_gone():
            raise LeaderGoneError
        check_same([each.manifest for each in loaded], self._bundles)

    async def taken(self, serving: Serving, server: Server) -> None:
        """Offer the metrics page, and listen for the leader's end.

        Raises:
            SettingsError: somebody has removed the folder of the sockets.
        """
        neighbors = Neighbors(
            self._folder, self.name, serving.metrics.page, serving.engine.unready
        )
        try:
            await neighbors.open()
        except OSError as error:
            raise SettingsError(
                f"the other processes cannot reach this one: {error}; restart them"
            ) from error
        self._neighbors = serving.neighbors = neighbors
        asyncio.get_running_loop().add_reader(PIPE, self._drain, server.drain)

    async def left(self) -> None:
        """Offer the page no longer."""
        if self._neighbors is not None:
            await self._neighbors.close()

    def cut_off(self) -> None:
        """A member has no other process to end."""

    async def ended(self) -> None:
        """Nothing is left to be done; `main` tidies up."""

    def _drain(self, drain: Callable[[], None]) -> None:
        """The leader is gone."""
        asyncio.get_running_loop().remove_reader(PIPE)
        drain()


def leader_is_gone() -> bool:
    """Whether the pipe has ended that the leader holds."""
    pipe = select.poll()
    pipe.register(PIPE, select.POLLHUP)
    return bool(pipe.poll(0))


def tidy_up(folder: Path) -> None:
    """Remove the folder of the sockets, if the leader cannot.

    A folder of another name is not its: somebody has typed this process's command.
    """
    if folder.name.startswith(PREFIX) and leader_is_gone():
        shutil.rmtree(folder, ignore_errors=True)


def build_engine(settings: Settings, order: dict[str, Any]) -> Engine:
    """An engine of its own, or the connection to the leader's."""
    host = order["host"]
    if host is None:
        return LaneEngine(settings, precisions=order["precisions"])
    return SharedEngine(
        settings,
        number=order["number"],
        path=Path(host["path"]),
        slots=Slots.of(order["memory"], host["slot_bytes"]),
        threads=host["threads"],
    )


def main() -> int:
    """Serve until the leader says so or is gone; the status of the process.

    The folder of the sockets is an argument, for a member that never gets its order.
    """
    folder = Path(sys.argv[1])
    try:
        # unbuffered, so that nothing is read that the loop shall wait for
        with open(PIPE, "rb", buffering=0, closefd=False) as pipe:
            order = pipe.readline()
        return run(json.loads(order), folder) if order else 1
    except EngineFailedError:  # logged; ended as in commands/serve.py
        tidy_up(folder)
        os._exit(1)
    finally:  # it may have ended before it had anything to leave
        tidy_up(folder)


def run(order: dict[str, Any], folder: Path) -> int:
    """Serve as the leader has ordered.

    What keeps it from serving is one line of the log, as the leader's log is all that
    anybody reads of it. The status `REFUSED` says that another try will end alike.

    Raises:
        EngineFailedError: as `serve_on`.
    """
    settings = load_settings(**order["settings"])
    log = build_log(settings)
    engine = build_engine(settings, order)
    place = Member(order["name"], folder, order["bundles"])
    with socket.socket(fileno=order["listener"]) as listener:
        try:
            # before all is loaded and measured: manifests are read in no time
            manifests = [bundle.manifest for bundle in find_bundles(settings)]
            check_same(manifests, order["bundles"])
            serve_on(listener, settings, engine, place)
        except BundleChangedError as error:
            log.error("refused", process=place.name, reason=str(error))
            return REFUSED
        except (ClassifierError, SettingsError) as error:
            log.error("cannot start", process=place.name, reason=str(error))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
