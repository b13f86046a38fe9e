"""A real server on a free port, with tiny bundles whose answers anyone can work out."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from classifier.manifest import Task
from service.address import Address, bind
from service.app import create_app
from service.engine import arrangement
from service.engine.engine import LaneEngine
from service.engine.lanes import Lanes
from service.leader import Leader
from service.logs import build_log
from service.server import Server
from service.settings import Settings
from tests.synthetic import make_bundle, png

RED, GREEN, BLUE = png((240, 10, 10)), png((10, 240, 10)), png((10, 10, 240))
GRAY = png((100, 100, 100))

START_S = 60


@pytest.fixture(scope="session", autouse=True)
def one_turn() -> Iterator[None]:
    """Engines of this process measure once: hundreds start here, and no test asks
    which batch is best, but those of the arrangement, which measure as they say.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrangement, "TURNS", 1)
        yield


class RunningServer(Server):
    """The server of production, in a thread, that says when it listens."""

    def __init__(self, *arguments: Any, place: Any) -> None:
        super().__init__(*arguments, place=place)
        self.listening = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        """Start, then tell the test."""
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def running(settings: Settings) -> Iterator[SimpleNamespace]:
    """Serve in a thread. Yields `url`, `client`, `app`, `server`, `log`, a stream."""
    log = StringIO()
    logger = build_log(settings, log)
    engine = LaneEngine(settings, log=logger)
    app = create_app(settings, engine, log=logger)
    listener = bind(settings.host, settings.port)
    leader = Leader(settings, engine, listener, logger)
    server = RunningServer(app, logger, place=leader)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert server.listening.wait(START_S), "the server did not start"
        url, port = Address.of(listener).url, listener.getsockname()[1]
        with httpx.Client(base_url=url, timeout=30) as client:
            yield SimpleNamespace(
                url=url, client=client, app=app, log=log, port=port, server=server
            )
    finally:
        server.should_exit = True
        thread.join()
    serving = app.serving  # nothing of any request is left, whatever became of it
    assert (serving.metrics.in_flight, serving.bodies.buffered_bytes) == (0, 0)
    assert serving._active == 0


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder: one bundle a task, two versions of one, and one that breaks."""
    root = tmp_path_factory.mktemp("models")
    make_bundle(root, "colors", Task.MULTICLASS)
    make_bundle(root, "is-red", Task.BINARY)
    make_bundle(root, "has", Task.MULTILABEL)
    make_bundle(
        root, "shades", Task.FINE_GRAINED, classes=6, top_k=2, abstain_threshold=0.6
    )
    make_bundle(root, "poison", misbehaves=True, slow_loops=300_000)
    return root


@pytest.fixture(scope="session")
def settings_for(bundles: Path) -> Callable[..., Settings]:
    """Settings of a test server: a free port, the tiny bundles, and what is given."""

    def build(**given: Any) -> Settings:
        defaults = {"models": bundles, "default_model": "colors", "processes": 1}
        return Settings(**{"port": 0, **defaults, **given})

    return build


@pytest.fixture(scope="session")
def server(settings_for: Callable[..., Settings]) -> Iterator[SimpleNamespace]:
    """One server for all tests that do not change it; small limits, so they are met."""
    settings = settings_for(
        max_body_bytes=200_000,
        max_batch_body_bytes=400_000,
        max_batch_items=8,
        max_pixels=1_000_000,
        body_timeout_ms=2_000,
    )
    with running(settings) as server:
        yield server


@pytest.fixture(scope="session")
def client(server: SimpleNamespace) -> httpx.Client:
    """A client of that server."""
    client: httpx.Client = server.client
    return client


def send(client: httpx.Client, image: bytes, **query: Any) -> httpx.Response:
    """Post one image as the body, by the fast path."""
    return client.post(
        "/classify",
        content=image,
        params=query,
        headers={"Content-Type": "image/png"},
    )


async def until(true, *, every_s: float = 0) -> None:
    """Let the loop turn until something is so that no event tells of.

    It is looked at in each turn, or less often where processes need the cores.
    """
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  (threads or processes move it)
            await asyncio.sleep(every_s)


def wait_until(true, *, seconds: float = 20) -> None:
    """Wait for what the server does after its last answer, and fail if it does not."""
    ends = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        ends.wait(0.02)
    raise AssertionError("it did not happen")


def threads_of(lanes: Lanes) -> list[threading.Thread]:
    """Those of the lanes that serve."""
    return [lane.thread for lane in lanes._lanes]
