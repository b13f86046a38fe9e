"""bundles → **engine**: builds the lanes and feeds them what is submitted."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from structlog.typing import FilteringBoundLogger

from classifier.device import choose_device
from classifier.hardware import available_cores
from classifier.preprocess import Pixels
from service.contract import LoadedModel, ModelKey, Settle, Withdraw
from service.engine.ahead import STUCK, DecodeAhead, Failed
from service.engine.backlog import Backlog
from service.engine.inline import InlineLane
from service.engine.lane import Lane
from service.engine.lanes import Lanes
from service.engine.models import EngineModel, decode_limits, load_models
from service.engine.ticket import Results, Ticket, build_tickets, decoded, settle_all
from service.errors import DrainingError, NotReadyError, ServiceError
from service.logs import build_log
from service.settings import Settings


class LaneEngine:
    """The engine of one process. Everything public is called on its event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        log: FilteringBoundLogger | None = None,
        precisions: Mapping[str, str] | None = None,
    ) -> None:
        """`precisions` of bundles, by NAME/VERSION, that another process has chosen."""
        self._settings = settings
        self._precisions = precisions
        self._log = log or build_log(settings)
        self._models: dict[ModelKey, EngineModel] = {}
        self._changed = threading.Condition()
        self._lanes: Lanes | None = None
        self._ahead: DecodeAhead | None = None
        self._closed = False
        self._broken = asyncio.Event()
        self.inline: InlineLane | None = None

    @property
    def loaded(self) -> Sequence[LoadedModel]:
        """The bundles that are served."""
        return [model.loaded for model in self._models.values()]

    def unready(self) -> str | None:
        """Why traffic should stay away just now; None when it may come."""
        if self._closed:
            return "the engine is closed"
        if self._lanes is None:
            return "the models are being loaded"
        return self._lanes.trouble or (STUCK if self._broken.is_set() else None)

    def queued(self, key: ModelKey) -> int:
        """Images that wait for that model."""
        ahead = 0 if self._ahead is None else self._ahead.waiting(key)
        inline = 0 if self.inline is None else self.inline.waiting(key)
        return ahead + inline + self._backlog.waiting(key)

    def image_s(self, key: ModelKey) -> float:
        """Seconds between the answers of a model that all lanes are at."""
        return self._backlog.cost_s(key) / self._backlog.lanes

    async def broken(self) -> None:
        """Wait until only a new process helps: lanes hang, or run nothing any more."""
        await self._broken.wait()

    async def start(self) -> None:
        """Choose the device, load, replay the goldens, measure, open the lanes.

        Raises:
            BundleError, SessionError: a bundle or the device refuses.
        """
        self._loop = asyncio.get_running_loop()
        device, reason = await asyncio.to_thread(choose_device, self._settings.device)
        self._log.info("device", device=device, reason=reason)
        models = await asyncio.to_thread(
            load_models, self._settings, device=device, precisions=self._precisions
        )
        self._models = {model.key: model for model in models}
        decode, capacity = self._settings.decode, self._settings.queue_capacity
        if decode == "auto":
            limits = decode_limits(self._settings)
            self.inline = InlineLane(
                self._models, self._loop, limits=limits, capacity=capacity
            )
            decode = "ahead" if device == "cuda" else "lane"
        if decode == "ahead":
            self._ahead = DecodeAhead(
                {model.key: model.manifest.preprocess for model in models},
                self._settings,
                costs_s={model.key: model.decode_s for model in models},
                threads=available_cores(),
                give_up=self._broken.set,
            )
        lanes = max(model.arrangement.lanes for model in models)
        self._backlog = Backlog(capacity=capacity, lanes=lanes)
        for model in models:
            crowd, decode_s = model.arrangement.crowd, model.decode_s
            if self._ahead is not None:
                decode_s = 0.0
            self._backlog.add_model(
                model.key,
                best_batch=crowd.batch,
                gentle_batch=crowd.gentle_batch,
                run_s=crowd.cost_s,
                decode_s=decode_s,
                abreast=model.arrangement.abreast,
            )
        self._lanes = Lanes(
            self._open_lane,
            hang_timeout_s=self._settings.hang_timeout_s,
            settle=settle_all,
            give_up=self._broken.set,
            log=self._log,
        )
        self._lanes.open(lanes)

    def limit_lanes(self, lanes: int) -> None:
        """Leave cores to other processes: close all lanes but these."""
        if self._lanes is not None:
            with self._changed:
                self._backlog.lanes = lanes
            self._lanes.open(lanes)

    def submit(
        self,
        key: ModelKey,
        images: Sequence[bytes],
        *,
        deadline: float | None,
        settle: Settle,
        explain: bool = False,
    ) -> Withdraw | None:
        """Take the images of one request; see `contract.Engine.submit`."""
        self._check_open()
        inline = self.inline if len(images) == 1 and not explain else None
        if inline is not None and inline.submit(
            key, images[0], settle, deadline=deadline
        ):
            return None
        tickets = build_tickets(
            Ticket, key, images, deadline=deadline, settle=settle, explain=explain
        )
        if self._ahead is None:
            self._offer(tickets)
        else:
            self._check_lanes(tickets, self._ahead)
            self._ahead.decode(tickets, partial(self._decoded, tickets))
        return partial(_withdraw, tickets)

    def submit_decoded(
        self,
        key: ModelKey,
        pixels: Sequence[Pixels],
        *,
        deadline: float | None,
        settle: Settle,
        explain: bool = False,
    ) -> Withdraw:
        """`submit` for what is pixels already; see `contract.Engine.submit_decoded`."""
        self._check_open()
        no_bytes = [b""] * len(pixels)
        tickets = build_tickets(
            Ticket, key, no_bytes, deadline=deadline, settle=settle, explain=explain
        )
        for ticket, each in zip(tickets, pixels, strict=True):
            ticket.ready = decoded(each)
        self._offer(tickets)
        return partial(_withdraw, tickets)

    def watch_trouble(self, watcher: Callable[[str | None], None]) -> None:
        """Call `watcher` whenever what `unready` says changes while the engine runs."""
        if self._lanes is not None:
            self._lanes.watcher = watcher

    async def close(self) -> int:
        """Stop every lane; what still waits is settled with an error."""
        self._closed = True
        if self._lanes is None:
            return 0
        error = DrainingError()
        ends = [self._lanes.close()]
        if self._ahead is not None:
            self._ahead.close()
            ends.append(self._ahead.left())
        left = sum(await asyncio.gather(*ends))
        with self._changed:
            waiting = self._backlog.clear()
        settle_all([(ticket, error) for ticket in waiting])
        return left

    def _check_open(self) -> None:
        if self._closed:
            raise DrainingError
        reason = self.unready()
        if reason is not None:
            raise NotReadyError(reason)

    def _check_lanes(self, tickets: Sequence[Ticket], ahead: DecodeAhead) -> None:
        """Refuse what lanes will have no room or no time for, before it is decoded."""
        first = tickets[0]
        coming, coming_s = ahead.coming(first.kind), ahead.coming_s(first.model)
        with self._changed:
            self._backlog.check(
                tickets, time.monotonic(), coming=coming, coming_s=coming_s
            )

    def _decoded(self, tickets: Sequence[Ticket], failed: Failed) -> None:
        """The tickets of a request were decoded ahead; `failed` are not to be run."""
        settle_all(list(failed.items()))  # which abandons them
        whole = [ticket for ticket in tickets if not ticket.abandoned]
        if not whole:
            return
        try:
            self._check_open()  # much may have happened meanwhile
            self._offer(whole)
        except ServiceError as error:
            settle_all([(ticket, error) for ticket in whole])

    def _offer(self, tickets: Sequence[Ticket]) -> None:
        with self._changed:
            self._backlog.offer(tickets, time.monotonic())
            self._changed.notify(len(tickets))

    def _settle_soon(self, results: Results) -> None:
        """Called by lanes: one wake-up of the loop for a whole batch."""
        self._loop.call_soon_threadsafe(settle_all, results)

    def _open_lane(
        self, name: str, died: Callable[[Lane, BaseException], None]
    ) -> Lane:
        return Lane(
            name,
            backlog=self._backlog,
            changed=self._changed,
            models=self._models,
            limits=decode_limits(self._settings),
            settle=self._settle_soon,
            died=died,
        )


def _withdraw(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.abandon()
