"""images → **outcomes**, of an engine in another process: decodes here, runs there."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from classifier.bundle import Bundle, load_bundle
from classifier.decode import warm_up
from classifier.preprocess import Pixels, Preprocessed
from service.contract import LoadedModel, ModelKey, Outcome, Settle, Timing, Withdraw
from service.engine.ahead import STUCK, DecodeAhead, Failed
from service.engine.models import decode_seconds
from service.engine.ticket import Ticket, build_tickets, decoded, settle_all
from service.errors import (
    DrainingError,
    EngineFailedError,
    EngineUnreachableError,
    NotReadyError,
    OverloadedError,
    ServiceError,
)
from service.settings import Settings
from service.shared import wire
from service.shared.slots import Slots
from service.shared.underway import SlottedRequest, SlottedTicket, Underway
from service.shared.wire import Link

GREETING_TIMEOUT_S = 10.0
NOT_REACHED = "the engine's process was not reached yet"
GONE = "the engine's process has ended"


class SharedEngine:
    """What a front-end has for an engine. Everything is called on its event loop."""

    def __init__(
        self, settings: Settings, *, number: int, path: Path, slots: Slots, threads: int
    ) -> None:
        """`number` and `slots` are those that the host at `path` knows."""
        self._settings = settings
        self._number = number
        self._path = path
        self._slots = slots
        self._threads = threads
        self._underway = Underway(list(range(slots.count)), settings.queue_capacity)
        self._trouble: str | None = NOT_REACHED
        self._models: dict[ModelKey, LoadedModel] = {}
        self._closed = False
        self._gone = asyncio.Event()

    @property
    def loaded(self) -> Sequence[LoadedModel]:
        """The bundles that the engine serves."""
        return list(self._models.values())

    def unready(self) -> str | None:
        """Why traffic should stay away just now; None when it may come."""
        return self._trouble or (STUCK if self._gone.is_set() else None)

    def queued(self, key: ModelKey) -> int:
        """Images that wait for pixels here; the engine's process counts the others."""
        return self._ahead.waiting(key)

    async def broken(self) -> None:
        """Wait until the engine's process is lost, or an image is decoded for ever.

        That process has ended, and this one ends with it; else the one that is started
        in place of this one has another link, and other decoders.
        """
        await self._gone.wait()

    async def start(self) -> None:
        """Reach the engine's process, and load what decoding needs.

        Raises:
            BundleError: a bundle cannot be read.
            EngineUnreachableError: there is no such process.
        """
        self._loop = asyncio.get_running_loop()
        self._greeting: asyncio.Future[wire.State] = self._loop.create_future()
        try:
            _, self._link = await self._loop.create_unix_connection(
                lambda: Link(self._heard, self._lost), str(self._path)
            )
            self._link.send(wire.Hello(self._number))
            async with asyncio.timeout(GREETING_TIMEOUT_S):
                state = await self._greeting
        except OSError as error:  # a timeout is one
            raise EngineUnreachableError(str(error) or "it is silent") from error
        await asyncio.to_thread(warm_up)
        models: dict[ModelKey, LoadedModel] = {}
        costs_s: dict[ModelKey, float] = {}
        for name, version, precision, device, explains, image_s in state.models:
            bundle = load_bundle(self._settings.models / name, version)
            loaded = LoadedModel(bundle.manifest, precision, device, explains)
            models[name, version] = loaded
            self._underway.image_s[name, version] = image_s
            costs_s[name, version] = await asyncio.to_thread(_decode_seconds, bundle)
        self._ahead = DecodeAhead(
            {key: each.manifest.preprocess for key, each in models.items()},
            self._settings,
            costs_s=costs_s,
            threads=self._threads,
            give_up=self._gone.set,
            keep=self._put_into_slot,
        )
        self._models = models  # all or none: `close` goes by it

    def submit(
        self,
        key: ModelKey,
        images: Sequence[bytes],
        *,
        deadline: float | None,
        settle: Settle,
        explain: bool = False,
    ) -> Withdraw:
        """Take the images of one request; see `contract.Engine.submit`."""
        tickets = self._tickets(key, images, deadline, settle, explain)
        request = SlottedRequest(tickets)
        try:
            self._ahead.decode(tuple(tickets), partial(self._decoded, request, key))
        except ServiceError:
            for ticket in tickets:
                self._underway.give_back(ticket)
            raise
        return partial(self._withdraw, request)

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
        tickets = self._tickets(key, [b""] * len(pixels), deadline, settle, explain)
        for ticket, each in zip(tickets, pixels, strict=True):
            ticket.ready = self._put_into_slot(ticket, decoded(each))
        request = SlottedRequest(tickets)
        self._send(request, key)
        return partial(self._withdraw, request)

    async def close(self) -> int:
        """Leave the engine's process alone; what still waits is settled."""
        self._closed = True
        if not self._models:
            return 0
        self._ahead.close()
        self._link.close()
        self._fail_all(DrainingError())
        return await self._ahead.left()

    def _tickets(
        self,
        key: ModelKey,
        images: Sequence[bytes],
        deadline: float | None,
        settle: Settle,
        explain: bool,
    ) -> list[SlottedTicket]:
        """Those of one request, each with a slot, where there is room for all."""
        self._check_open()
        kind = key, len(images) > 1
        room = self._underway.room_for(kind)
        if len(images) > room:
            raise OverloadedError(
                f"{self._underway.held[kind]} images for {key[0]} are under way; "
                f"of {len(images)} more there is room for {room}",
                retry_after_s=max(
                    self._ahead.coming_s(key), self._underway.drained_s(kind)
                ),
            )
        return build_tickets(
            lambda **given: SlottedTicket(slot=self._underway.take(kind), **given),
            key,
            images,
            deadline=deadline,
            settle=settle,
            explain=explain,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise DrainingError
        if self._trouble is not None:
            raise NotReadyError(self._trouble)

    def _put_into_slot(self, ticket: Ticket, ready: Preprocessed) -> Preprocessed:
        assert isinstance(ticket, SlottedTicket)  # noqa: S101, all that are made here
        pixels = self._slots.pixels(ticket.slot, ready.pixels.shape)
        pixels[:] = ready.pixels
        return ready._replace(pixels=pixels)

    def _decoded(self, request: SlottedRequest, key: ModelKey, failed: Failed) -> None:
        """The pixels of a request are in their slots, but for those that failed."""
        tickets = list(request.tickets)
        try:
            self._check_open()  # much may have happened meanwhile
        except ServiceError as error:
            failed = dict.fromkeys(tickets, error)
        for ticket in tickets:
            if ticket in failed or ticket.abandoned:
                self._underway.end(request, ticket)
        settle_all(list(failed.items()))
        if request.tickets:
            self._send(request, key)

    def _send(self, request: SlottedRequest, key: ModelKey) -> None:
        """Offer what has pixels to the engine's process."""
        number, first = self._underway.send(request), request.tickets[0]
        model = list(self._models).index(key)
        slots = tuple(ticket.slot for ticket in request.sent)
        self._link.send(
            wire.Submit(number, model, first.explain, first.deadline, slots)
        )

    def _withdraw(self, request: SlottedRequest) -> None:
        for ticket in request.sent or request.tickets:
            ticket.abandon()
        if request.number is not None and request.tickets:
            # The slots stay taken until its last message from there: a result may be
            # about to be written into them, and the socket orders messages only.
            self._link.send(wire.Withdraw(request.number))

    def _heard(self, _: Link, message: wire.Message) -> None:
        match message:
            case wire.State(trouble):
                self._trouble = trouble
                if not self._greeting.done():
                    self._greeting.set_result(message)
            case wire.Result(number, position):
                if request := self._underway.requests.get(number):
                    self._settle(request, request.sent[position], message)
            case wire.Failed(number, position):
                if request := self._underway.requests.get(number):
                    whole = position == wire.WHOLE_REQUEST
                    failed = request.tickets if whole else [request.sent[position]]
                    self._fail(request, list(failed), message.error)

    def _settle(
        self, request: SlottedRequest, ticket: SlottedTicket, settled: wire.Result
    ) -> None:
        manifest = self._models[ticket.model].manifest
        logits, scores = self._slots.read_result(ticket.slot, manifest.logits)
        if ticket.ready is None:
            raise AssertionError("a ticket was run before it was decoded")
        spent_s = time.monotonic() - ticket.arrived
        self._underway.spent_s[ticket.kind] = spent_s
        decode_ms = 1e3 * ticket.ahead_s
        known_ms = decode_ms + settled.batch_ms + settled.infer_ms
        outcome = Outcome(
            logits=logits,
            scores=scores,
            image=ticket.ready.image,
            warnings=ticket.ready.warnings,
            timing=Timing(
                decode_ms=decode_ms,
                # for a decoder, for mates, for a lane, and on the way there and back
                queue_ms=max(0.0, 1e3 * spent_s - known_ms),
                batch_ms=settled.batch_ms,
                infer_ms=settled.infer_ms,
                batch_size=settled.batch_size,
            ),
            class_maps=settled.class_maps,
        )
        self._underway.end(request, ticket)
        settle_all([(ticket, outcome)])

    def _fail(
        self,
        request: SlottedRequest,
        tickets: Sequence[SlottedTicket],
        error: ServiceError,
    ) -> None:
        for ticket in tickets:
            self._underway.end(request, ticket)
        settle_all([(ticket, error) for ticket in tickets])

    def _fail_all(self, error: ServiceError) -> None:
        for request in list(self._underway.requests.values()):
            self._fail(request, list(request.tickets), error)

    def _lost(self, _: Link) -> None:
        self._trouble = GONE
        if not self._closed:
            self._gone.set()
        if not self._greeting.done():
            self._greeting.set_exception(ConnectionError(GONE))
        self._fail_all(EngineFailedError(GONE))


def _decode_seconds(bundle: Bundle) -> float:
    """Reads a golden image, which is work for a thread as well."""
    golden = bundle.read_golden().pixels[0]  # uint8 [H, W, C]
    return decode_seconds(golden, bundle.manifest.preprocess)
