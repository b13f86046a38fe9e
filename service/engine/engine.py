"""bundles → **engine**: builds the lanes, feeds them, and replaces what breaks."""

import asyncio
import threading
import time
from collections.abc import Sequence
from functools import partial

import structlog

from classifier.errors import ClassifierError
from classifier.hardware import available_cores
from service.contract import Loaded, ModelKey, Outcome
from service.engine.ahead import DecodeAhead
from service.engine.backlog import Backlog
from service.engine.inline import InlineLane
from service.engine.lane import Lane, Results
from service.engine.models import ServedModel, decode_limits, load_models
from service.engine.ticket import Settled, Ticket
from service.errors import (
    DrainingError,
    EngineFailedError,
    ServiceError,
    UnavailableError,
)
from service.settings import Settings

# A lane that hangs cannot be killed, only left behind with its memory and its core.
MAX_LOST_LANES = 3
# Two batches in flight: one is copied and cut while the other runs.
CUDA_LANES = 2

log = structlog.get_logger(__name__)


class LaneEngine:
    """The engine of one process. Everything public is called on its event loop."""

    def __init__(self, settings: Settings, *, lanes: int | None = None) -> None:
        self._settings = settings
        self._lanes_wanted = lanes or available_cores()
        self._models: dict[ModelKey, ServedModel] = {}
        self._changed = threading.Condition()
        self._lanes: list[Lane] = []
        self.inline: InlineLane | None = None
        self._ahead: DecodeAhead | None = None
        self._lost = 0
        self._started = False
        self._draining = False
        self._open = 0  # requests accepted and not yet answered
        self._idle = asyncio.Event()

    @property
    def loaded(self) -> Sequence[Loaded]:
        """The bundles that are served."""
        return [model.loaded for model in self._models.values()]

    def unready(self) -> str | None:
        """Why traffic should stay away just now; None when it may come."""
        if not self._started:
            return "the models are being loaded"
        if self._draining:
            return "the process is draining"
        if not any(lane.alive for lane in self._lanes):
            return "no lane is alive"
        if self._lost >= MAX_LOST_LANES:
            return f"{self._lost} lanes hang; the process should be restarted"
        return None

    def queued(self, key: ModelKey) -> int:
        """Images that wait for that model."""
        return self._backlog.waiting(key)

    async def start(self) -> None:
        """Load, replay the goldens, measure, open the lanes.

        Raises:
            BundleError, SessionError: a bundle or the device refuses.
        """
        self._loop = asyncio.get_running_loop()
        models = await asyncio.to_thread(load_models, self._settings)
        self._models = {model.key: model for model in models}
        self.inline = InlineLane(self._models, self._loop)
        if any(model.session.device == "cuda" for model in models):
            self._lanes_wanted = CUDA_LANES
            self._ahead = DecodeAhead(
                self._models,
                limits=decode_limits(self._settings),
                capacity=self._settings.queue_capacity,
            )
        self._backlog = Backlog(
            capacity=self._settings.queue_capacity, lanes=self._lanes_wanted
        )
        for model in models:
            self._backlog.add_model(
                model.key, best_batch=model.best_batch, cost_s=model.run_s
            )
        for _ in range(self._lanes_wanted):
            self._open_lane()
        self._watchdog = self._loop.create_task(self._watch())
        self._started = True

    def limit_lanes(self, lanes: int) -> None:
        """Leave cores to other processes: close all lanes but these."""
        self._backlog.lanes = lanes
        surplus, self._lanes = self._lanes[lanes:], self._lanes[:lanes]
        for lane in surplus:
            lane.close()

    async def classify(
        self,
        key: ModelKey,
        data: bytes,
        *,
        deadline: float | None,
        explain: bool = False,
    ) -> Outcome:
        """Run one image.

        Raises:
            ClassifierError: the image cannot be used.
            ServiceError: overloaded, draining, too late, or broken.
        """
        self._check_open()
        if not explain and self.inline:
            future: asyncio.Future[Settled] = self._loop.create_future()
            if self.inline.submit(key, data, partial(_set, future)):
                return _unwrap(await future)
        ticket = self._ticket(key, data, deadline, explain=explain)
        (settled,) = await self._serve([ticket])
        return _unwrap(settled)

    async def classify_many(
        self,
        key: ModelKey,
        images: Sequence[bytes],
        *,
        deadline: float | None,
        explain: bool = False,
    ) -> Sequence[Settled]:
        """Run many, in order; a failure stands in the place of its image.

        Raises:
            ServiceError: the request as a whole is refused.
        """
        self._check_open()
        if not images:
            return []
        request = object()
        return await self._serve(
            [
                self._ticket(key, data, deadline, request, explain=explain)
                for data in images
            ]
        )

    async def drain(self) -> None:
        """Refuse what comes, finish what was accepted."""
        self._draining = True
        while self._open:
            self._idle.clear()
            await self._idle.wait()

    async def close(self) -> None:
        """Stop every lane; whatever still waits is failed."""
        self._draining = True
        if not self._started:
            return
        self._watchdog.cancel()
        if self._ahead is not None:
            self._ahead.close()
        for lane in self._lanes:
            lane.close()
        hang_s = self._settings.hang_timeout_s
        await asyncio.to_thread(_join, self._lanes, hang_s)

    def _check_open(self) -> None:
        if self._draining:
            raise DrainingError("the service is about to stop")
        reason = self.unready()
        if reason is not None:
            raise UnavailableError(reason)

    def _ticket(
        self,
        key: ModelKey,
        data: bytes,
        deadline: float | None,
        request: object | None = None,
        *,
        explain: bool,
    ) -> Ticket:
        future: asyncio.Future[Settled] = self._loop.create_future()
        arrived = time.monotonic()
        return Ticket(key, data, arrived, deadline, request, future, explain=explain)

    async def _serve(self, tickets: Sequence[Ticket]) -> Sequence[Settled]:
        """Put one request through; each place holds what became of its image."""
        failed = await self._ahead.decode(tickets) if self._ahead else {}
        whole = [ticket for ticket in tickets if ticket not in failed]
        if whole:
            self._offer(whole)
        answers = iter(await self._answers(whole))
        return [failed[t] if t in failed else next(answers) for t in tickets]

    def _offer(self, tickets: Sequence[Ticket]) -> None:
        with self._changed:
            self._backlog.offer(tickets, time.monotonic())
            self._changed.notify(len(tickets))

    async def _answers(self, tickets: Sequence[Ticket]) -> Sequence[Settled]:
        self._open += len(tickets)
        try:
            return [await ticket.future for ticket in tickets if ticket.future]
        finally:
            self._open -= len(tickets)
            for ticket in tickets:  # the sender may have left; a lane looks at this
                ticket.abandoned = True
            if not self._open:
                self._idle.set()

    def _settle_soon(self, results: Results) -> None:
        """Called by lanes: one wake-up of the loop for a whole batch."""
        self._loop.call_soon_threadsafe(_settle, results)

    def _open_lane(self) -> None:
        lane = Lane(
            f"lane-{len(self._lanes)}",
            backlog=self._backlog,
            changed=self._changed,
            models=self._models,
            limits=decode_limits(self._settings),
            settle=self._settle_soon,
            died=self._died_soon,
        )
        self._lanes.append(lane)
        lane.start()

    def _died_soon(self, lane: Lane, error: BaseException) -> None:
        log.error("lane died", lane=lane.thread.name, exc_info=error)
        self._loop.call_soon_threadsafe(self._replace, lane, "a lane died")

    def _replace(self, lane: Lane, reason: str) -> None:
        """Fail what a broken lane held and open another in its place."""
        if lane not in self._lanes:
            return
        self._lanes.remove(lane)
        held = lane.abandon()
        with self._changed:
            if held:
                self._backlog.finish(held[0].model, 0, 0.0)
        _settle([(ticket, EngineFailedError(reason)) for ticket in held])
        if self._lost < MAX_LOST_LANES:
            self._open_lane()

    async def _watch(self) -> None:
        """Find lanes that hang. Nothing else can: a hung lane reports nothing."""
        limit_s = self._settings.hang_timeout_s
        while True:
            await asyncio.sleep(limit_s / 4)
            now = time.monotonic()
            for lane in list(self._lanes):
                if lane.began is not None and now - lane.began > limit_s:
                    log.error("lane hangs", lane=lane.thread.name, limit_s=limit_s)
                    self._lost += 1
                    self._replace(lane, "the model did not finish in time")


def _settle(results: Results) -> None:
    for ticket, settled in results:
        if ticket.future is not None:
            _set(ticket.future, settled)


def _set(future: "asyncio.Future[Settled]", settled: Settled) -> None:
    if not future.done():  # its sender may have left
        future.set_result(settled)


def _unwrap(settled: Settled) -> Outcome:
    if isinstance(settled, ClassifierError | ServiceError):
        raise settled
    return settled


def _join(lanes: Sequence[Lane], timeout_s: float) -> None:
    ends = time.monotonic() + timeout_s
    for lane in lanes:
        lane.thread.join(max(0.0, ends - time.monotonic()))
