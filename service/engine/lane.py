"""tickets → **outcomes**: a thread that serves the backlog on its share of cores.

A free lane takes what waits, at the last moment, decodes it while the bytes are warm in
its core's cache, runs it, and settles every ticket. A lane outlives any image.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from classifier.decode import DecodeLimits
from classifier.errors import SessionError
from service.contract import ModelKey, Outcome
from service.engine.backlog import Backlog, Cut
from service.engine.decoding import decode_ticket
from service.engine.isolation import run_isolated
from service.engine.models import EngineModel
from service.engine.run import explained, run_together
from service.engine.ticket import Results, Ticket, too_late

# When every image of a model has failed for so long, it is tried on a golden one.
DOUBTED_AFTER_S = 5.0


class Lane:
    """One thread. `settle` and `died` are called in it and must be quick.

    It dies of a SessionError when its device runs nothing any more.
    """

    def __init__(  # noqa: PLR0913  (the composition root names each part once)
        self,
        name: str,
        *,
        backlog: Backlog,
        changed: threading.Condition,
        models: Mapping[ModelKey, EngineModel],
        limits: DecodeLimits,
        settle: Callable[[Results], None],
        died: Callable[["Lane", BaseException], None],
    ) -> None:
        self._backlog = backlog
        self._changed = changed  # guards the backlog
        self._models = models
        self._limits = limits
        self._settle = settle
        self._died = died
        self._closing = False
        self._in_hand: Cut | None = None
        self.began: float | None = None  # instant of the batch at work, if any
        self.stepped = 0.0  # when an image of it was decoded or refused, or a run over
        self._failing: dict[ModelKey, float] = {}  # since when no image has run
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self.thread.start()

    def close(self) -> None:
        """Stop after the batch at work; wake it if it waits."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def abandon(self, began: float | None) -> list[Ticket] | None:
        """Give up a lane that hangs or died; returns the tickets that it held.

        The caller settles them. None if the batch that began at `began` is over: the
        lane goes on.
        """
        with self._changed:
            if self.began != began:
                return None
            self._closing = True
            held, self._in_hand = self._in_hand, None
            if held is None:
                return []
            self._backlog.finish(held)
        return held.batch

    def _live(self) -> None:
        try:
            while cut := self._next():
                self._serve(cut)
                del cut  # an idle lane would keep its last images alive
        except BaseException as error:  # border: a thread must not die unheard
            self._died(self, error)

    def _next(self) -> Cut | None:
        with self._changed:
            while not self._closing:
                cut = self._backlog.take(time.monotonic())
                if cut is not None:
                    self._in_hand = cut if cut.batch else None
                    self.stepped = time.monotonic()
                    self.began = self.stepped if cut.batch else None
                    return cut
                self._changed.wait()
        return None

    def _serve(self, cut: Cut) -> None:
        if cut.expired:
            # before the batch, which may take long, hang or break
            self._settle(too_late(cut.expired))
        if not cut.batch:
            return
        model = self._models[cut.batch[0].model]
        results: Results = []
        decoded = self._decode(cut.batch, model, results)
        # of the decoded only: to refuse a broken image takes less
        decode_s = mean_s(decoded)
        plain = [ticket for ticket in decoded if not ticket.explain]
        to_explain = [ticket for ticket in decoded if ticket.explain]
        run_s = self._run(plain, model, results)
        told, beyond_s = 0, 0.0
        if to_explain:
            told = len(results)
            self._settle(results[:told])  # the others take long, one after the other
            beyond_s = self._explain(to_explain, model, results)
        broken = self._try_golden(model, results) if decoded else None
        with self._changed:
            if self._closing and self._in_hand is None:
                return  # abandoned: its tickets are settled, its place is taken
            self._in_hand = self.began = None
            self._backlog.finish(cut, decode_s=decode_s, run_s=run_s, beyond_s=beyond_s)
        self._settle(results[told:])
        if broken is not None:
            raise broken

    def _decode(
        self, batch: list[Ticket], model: EngineModel, results: Results
    ) -> list[Ticket]:
        """Decode each ticket by itself; the undecodable settle with their error."""
        decoded = []
        for ticket in batch:
            ticket.taken = time.monotonic()
            if ticket.abandoned:
                continue
            failed = None
            if ticket.ready is None:
                spec = model.manifest.preprocess
                failed = decode_ticket(ticket, spec, limits=self._limits)
            # one that cannot be decoded may have taken as long as any
            ticket.decoded = self.stepped = time.monotonic()
            if failed is None:
                decoded.append(ticket)
            else:
                results.append((ticket, failed))
        return decoded

    def _try_golden(self, model: EngineModel, results: Results) -> SessionError | None:
        """When no image of a model has run for a while: why a golden one fails, too."""
        if any(isinstance(fate, Outcome) for _, fate in results):
            self._failing.pop(model.key, None)
            return None
        now = time.monotonic()
        if now - self._failing.setdefault(model.key, now) < DOUBTED_AFTER_S:
            return None
        del self._failing[model.key]
        run = model.arrangement.crowd.session.run
        (row,) = run_isolated(run, model.golden[None])  # float32 [K]
        return row if isinstance(row, SessionError) else None

    def _run(
        self, plain: list[Ticket], model: EngineModel, results: Results
    ) -> float | None:
        """Run what was decoded; its seconds an image, if that was as of a crowd."""
        if not plain:
            return None
        began = time.monotonic()
        lone = len(plain) == 1 and self._backlog.calm
        chosen = model.arrangement.lone if lone else model.arrangement.crowd
        results += run_together(plain, model, chosen.session)
        self.stepped = time.monotonic()
        return None if lone else (self.stepped - began) / len(plain)

    def _explain(
        self, tickets: list[Ticket], model: EngineModel, results: Results
    ) -> float:
        """Run each with its class maps; the seconds beyond those of plain images."""
        began = time.monotonic()
        for ticket in tickets:
            if ticket.abandoned:
                continue
            if ticket.late(self.stepped):
                results += too_late([ticket])
                continue
            results.append((ticket, explained(ticket, model)))
            self.stepped = time.monotonic()
        known_s = len(tickets) * self._backlog.run_s(model.key)
        return time.monotonic() - began - known_s


def mean_s(decoded: Sequence[Ticket]) -> float | None:
    """What decoding one of these has taken; None of none."""
    if not decoded:
        return None
    return sum(ticket.decoded - ticket.taken for ticket in decoded) / len(decoded)
