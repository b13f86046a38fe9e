"""engine → **engine for others**: answers the front-ends of one service."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.contract import Outcome, Settled, Withdraw
from service.engine.engine import LaneEngine
from service.errors import EngineFailedError, ServiceError
from service.shared import wire
from service.shared.slots import Slots
from service.shared.wire import Link


@dataclass(slots=True)
class PendingRequest:
    """A request that a front-end waits for."""

    slots: tuple[int, ...]
    missing: int
    withdraw: Withdraw


class FrontEnd:
    """One front-end: its link, its memory, its requests."""

    def __init__(self, link: Link, slots: Slots, engine: LaneEngine) -> None:
        self.link = link
        self._slots = slots
        self._engine = engine
        self._models = [loaded.manifest for loaded in engine.loaded]
        self._requests: dict[int, PendingRequest] = {}

    def submit(self, order: wire.Submit) -> None:
        """Offer its images to the engine."""
        manifest = self._models[order.model]
        shape = manifest.preprocess.shape
        pixels = [self._slots.pixels(slot, shape) for slot in order.slots]
        try:
            withdraw = self._engine.submit_decoded(
                (manifest.name, manifest.version),
                pixels,
                deadline=order.deadline,
                settle=partial(self._settle, order.request),
                explain=order.explain,
            )
        except ServiceError as error:
            whole = wire.WHOLE_REQUEST
            self.link.send(wire.Failed.of(order.request, whole, error))
            return
        request = PendingRequest(order.slots, len(order.slots), withdraw)
        self._requests[order.request] = request

    def withdraw(self, number: int) -> None:
        """Nobody waits for that request: write nothing for it any more, and say so."""
        request = self._requests.pop(number, None)
        if request is not None:  # else the last that it will hear is on its way
            request.withdraw()
            error = EngineFailedError("the request was withdrawn")
            self.link.send(wire.Failed.of(number, wire.WHOLE_REQUEST, error))

    def leave(self) -> None:
        """The front-end is gone, and nobody waits for anything of it."""
        for number in list(self._requests):
            self.withdraw(number)

    def _settle(self, number: int, position: int, fate: Settled) -> None:
        request = self._requests.get(number)
        if request is None:
            return
        request.missing -= 1
        if not request.missing:
            del self._requests[number]
        if not isinstance(fate, Outcome):
            self.link.send(wire.Failed.of(number, position, fate))
            return
        slot = request.slots[position]
        self._slots.write_result(slot, fate.logits, fate.scores)
        timing, maps = fate.timing, fate.class_maps
        self.link.send(
            wire.Result(
                number,
                position,
                timing.batch_size,
                timing.batch_ms,
                timing.infer_ms,
                b"" if maps is None else wire.MAPS.pack(*maps.shape) + maps.tobytes(),
            )
        )


class Host:
    """Listens for front-ends on a Unix socket in a private folder."""

    def __init__(
        self, engine: LaneEngine, path: Path, memories: Mapping[int, Slots]
    ) -> None:
        """`memories` are the slots of each front-end, by its number."""
        self._engine = engine
        self._path = path
        self._memories = memories
        self._front_ends: dict[Link, FrontEnd] = {}
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        """Wait for front-ends; the engine has started."""
        self._engine.watch_trouble(self._tell)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: Link(self._heard, self._lost), str(self._path)
        )

    async def close(self) -> None:
        """Let the front-ends go."""
        if self._server is not None:
            self._server.close()
        for link in list(self._front_ends):
            link.close()

    def _heard(self, link: Link, message: wire.Message) -> None:
        match message:
            case wire.Hello(number):
                self._front_ends[link] = FrontEnd(
                    link, self._memories[number], self._engine
                )
                link.send(wire.State(self._engine.unready(), self._models()))
            case wire.Submit():
                self._front_ends[link].submit(message)
            case wire.Withdraw(number):
                self._front_ends[link].withdraw(number)

    def _lost(self, link: Link) -> None:
        front_end = self._front_ends.pop(link, None)
        if front_end is not None:
            front_end.leave()

    def _tell(self, trouble: str | None) -> None:
        for link in self._front_ends:
            link.send(wire.State(trouble))

    def _models(self) -> tuple[wire.SharedModel, ...]:
        return tuple(
            wire.SharedModel(
                loaded.manifest.name,
                loaded.manifest.version,
                loaded.precision,
                loaded.device,
                loaded.explains,
                self._engine.image_s(loaded.key),
            )
            for loaded in self._engine.loaded
        )
