"""settings, engine → **serving**: what all routes share, from start to drain."""

import asyncio
from functools import partial
from types import TracebackType
from typing import Self

from service.bodies import Bodies
from service.catalog import Catalog, CatalogEntry
from service.contract import Engine
from service.errors import DrainingError, NotReadyError
from service.metrics import Metrics
from service.neighbors import Neighbors
from service.settings import Settings


class Serving:
    """The state of one application. `catalog` is empty until `start` has ended."""

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics) -> None:
        self.settings = settings
        self.engine = engine
        self.metrics = metrics
        self.neighbors: Neighbors | None = None  # where several processes serve
        self.bodies = Bodies(
            max_buffered_bytes=settings.max_buffered_bytes,
            timeout_s=settings.body_timeout_ms / 1e3,
        )
        self.catalog = Catalog((), default=None)
        self.draining = False
        self._refusing = False
        self._active = 0
        self._idle = asyncio.Event()

    async def start(self) -> None:
        """Load and warm up; after this the models can be found.

        Raises:
            ClassifierError: a bundle or the device is refused.
            SettingsError: the default model is not loaded.
        """
        await self.engine.start()
        entries = [CatalogEntry(loaded, self.metrics) for loaded in self.engine.loaded]
        self.catalog = Catalog(entries, default=self.settings.default_model)
        self._watch()

    async def metrics_page(self) -> bytes:
        """The metrics of all processes on this port."""
        if self.neighbors is None:
            return self.metrics.page()
        return await self.neighbors.merged_page()

    def deadline(self) -> float:
        """The instant, on the loop's clock, by which a request must be answered."""
        timeout_s = self.settings.request_timeout_ms / 1e3
        return asyncio.get_running_loop().time() + timeout_s

    async def check_ready(self) -> None:
        """Whether traffic should come to this port.

        Raises:
            DrainingError: the process is about to stop.
            NotReadyError: it cannot serve, or another one that has the port cannot.
        """
        if self.draining:
            raise DrainingError
        reason = self.engine.unready()
        if reason is None and self.neighbors is not None:
            reason = await self.neighbors.unready()
        if reason is not None:
            raise NotReadyError(reason)

    def enter(self) -> None:
        """Count a request that brings work in; refuse it while draining.

        Raises:
            DrainingError: the process is about to stop.
            NotReadyError: there is no lane to serve it.
        """
        if self._refusing:
            raise DrainingError
        reason = self.engine.unready()
        if reason is not None:
            raise NotReadyError(reason)
        self._active += 1

    def leave(self) -> None:
        """Count a request out: it is answered, or its client has left."""
        self._active -= 1
        if self._refusing and self._active == 0:
            self._idle.set()

    def __enter__(self) -> Self:
        """`enter`, for the length of a block."""
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    async def drain(self, *, notice_s: float, timeout_s: float) -> bool:
        """Finish what was accepted; False when `timeout_s` was not enough.

        For `notice_s` readiness is red while requests are still served, so that a
        balancer has time to look; then new ones are refused.
        """
        self.draining = True
        await asyncio.sleep(notice_s)
        self._refusing = True
        if self._active == 0:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> int:
        """Close the engine; answers how many of its threads are left behind."""
        return await self.engine.close()

    def _watch(self) -> None:
        metrics = self.metrics
        metrics.ready.watch(lambda: not self.draining and self.engine.unready() is None)
        metrics.buffered_bytes.watch(lambda: self.bodies.buffered_bytes)
        for model in self.catalog:
            name, version = model.key
            metrics.queued_images.watch(
                partial(self.engine.queued, model.key), name, str(version)
            )
