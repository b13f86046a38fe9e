"""order of a leader → **one more process** on its port; see `service/leader.py`."""

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from classifier.errors import ClassifierError
from service.contract import Engine, LoadedModel
from service.crew import REFUSED, check_same
from service.engine.engine import LaneEngine
from service.engine.models import find_bundles
from service.errors import BundleChangedError, EngineFailedError, SettingsError
from service.logs import build_log
from service.neighbors import Neighbors
from service.server import Server, serve_on
from service.serving import Serving
from service.settings import Settings, load_settings
from service.shared.front import SharedEngine
from service.shared.slots import Slots


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
        self._orphaned = False  # the leader is gone
        self._watch: asyncio.Task[None] | None = None

    def check(self, loaded: Sequence[LoadedModel]) -> None:
        """Raises BundleChangedError if they are not what the leader has loaded.

        They may have been written anew since `main` has looked.
        """
        check_same([each.manifest for each in loaded], self._bundles)

    async def taken(self, serving: Serving, server: Server) -> None:
        """Offer the metrics page, and listen for the leader's end."""
        self._neighbors = Neighbors(
            self._folder, self.name, serving.metrics.page, serving.engine.unready
        )
        await self._neighbors.open()
        serving.neighbors = self._neighbors
        self._watch = asyncio.create_task(self._drain_without_leader(server.drain))

    async def left(self) -> None:
        """Offer the page no longer; tidy up where the leader cannot."""
        if self._neighbors is not None:
            await self._neighbors.close()
        if self._orphaned:
            shutil.rmtree(self._folder, ignore_errors=True)

    def cut_off(self) -> None:
        """A member has no other process to end."""

    async def _drain_without_leader(self, drain: Callable[[], None]) -> None:
        """Wait for the end of the pipe that the leader holds, then drain."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        await reader.read()
        self._orphaned = True
        drain()


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

    What keeps it from serving is one line of the log, as the leader's log is all that
    anybody reads of it. The status `REFUSED` says that another try will end alike.
    """
    # unbuffered, so that nothing is read that the loop shall wait for
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        order = json.loads(pipe.readline())
    settings = load_settings(**order["settings"])
    log = build_log(settings)
    engine = build_engine(settings, order)
    place = Member(order["name"], Path(order["folder"]), order["bundles"])
    with socket.socket(fileno=order["listener"]) as listener:
        try:
            # before all is loaded and measured: manifests are read in no time
            manifests = [bundle.manifest for bundle in find_bundles(settings)]
            check_same(manifests, order["bundles"])
            serve_on(listener, settings, engine, place)
        except EngineFailedError:  # logged; ended as in commands/serve.py
            os._exit(1)
        except BundleChangedError as error:
            log.error("refused", process=place.name, reason=str(error))
            return REFUSED
        except (ClassifierError, SettingsError) as error:
            log.error("cannot start", process=place.name, reason=str(error))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
