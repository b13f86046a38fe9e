"""tickets → **decoded tickets**, before the backlog: for a GPU, and in front-ends.

A GPU runs a batch in the time that a core decodes one photo, so its lanes must find
pixels ready. On a CPU lanes decode themselves, while the bytes are warm in their cache.
"""

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from classifier.manifest import PreprocessSpec
from service.contract import ModelKey, Settled
from service.engine.backlog import Backlog, Cut
from service.engine.decoding import Keep, as_it_is, decode_ticket
from service.engine.lanes import JOIN_S, join_all
from service.engine.models import decode_limits
from service.engine.ticket import RequestKind, Ticket, too_late
from service.errors import DrainingError
from service.settings import Settings
from service.watchdog import SILENT_LOOKS

STUCK = "a decoder hangs or has died; the process should be restarted"

Failed = Mapping[Ticket, Settled]  # those that have no pixels, and why
Done = Callable[[Failed], None]


@dataclass(slots=True, eq=False)
class DecodeRequest:
    """The tickets of one request, and what to call when all are decoded or failed."""

    tickets: Sequence[Ticket]
    done: Done
    missing: int
    failed: dict[Ticket, Settled] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Decoder:
    """One thread that decodes, and what it has done so far."""

    thread: threading.Thread = field(init=False)
    begun: int = 0  # images
    ended: int = 0
    begun_before: int = 0  # at the look before
    looks: int = 0  # that have found it at the same image

    def stands_still(self) -> bool:
        """Whether it is at one image for as many looks as a limit has, or has died.

        By the clock, all would hang when the machine has stood still.
        """
        same = self.ended < self.begun == self.begun_before
        self.looks = self.looks + 1 if same else 0
        self.begun_before = self.begun
        return self.looks >= SILENT_LOOKS or not self.thread.is_alive()


class DecodeAhead:
    """Threads that decode for one event loop, on which its methods are called.

    Tickets wait for them in a backlog like that of the lanes, with the same promises.
    All that was finished meanwhile is reported in one wake-up of the loop.
    """

    def __init__(
        self,
        specs: Mapping[ModelKey, PreprocessSpec],
        settings: Settings,
        *,
        costs_s: Mapping[ModelKey, float],
        threads: int,
        give_up: Callable[[], None],
        keep: Keep = as_it_is,
    ) -> None:
        """`costs_s` are the first estimates of the seconds to decode an image.

        `keep` is called in the decoding thread; what it returns becomes `Ticket.ready`.
        `give_up` is called when only a new process helps: a thread hangs, or has died.
        """
        self._specs = specs
        self._limits = decode_limits(settings)
        self._keep = keep
        self._give_up = give_up
        self._closed = False
        self._backlog = Backlog(capacity=settings.queue_capacity, lanes=threads)
        for key in specs:
            self._backlog.add_model(key, best_batch=1, run_s=0.0, decode_s=costs_s[key])
        self._changed = threading.Condition()  # guards the backlog
        self._loop = asyncio.get_running_loop()
        self._requests: dict[Ticket, DecodeRequest] = {}
        self._coming: Counter[RequestKind] = Counter()
        self._finished: deque[tuple[Ticket, Settled | None]] = deque()
        self._called = False  # the loop will collect what is finished
        self._decoders = [Decoder() for _ in range(threads)]
        for number, decoder in enumerate(self._decoders):
            decoder.thread = threading.Thread(
                target=self._work, args=[decoder], name=f"decode-{number}", daemon=True
            )
            decoder.thread.start()
        self._hang_timeout_s = settings.hang_timeout_s
        self._look_every_s = settings.hang_timeout_s / SILENT_LOOKS
        self._look_again = self._loop.call_later(self._look_every_s, self._look)

    def decode(self, tickets: Sequence[Ticket], done: Done) -> None:
        """Decode the tickets of one request; `done` is called once, and later.

        Raises:
            OverloadedError: the queue for the decoders is full for their kind, or
                these could not be decoded before their deadline.
            DrainingError: it was closed.
        """
        if self._closed:
            raise DrainingError
        with self._changed:
            self._backlog.offer(tickets, time.monotonic())
            self._changed.notify(len(tickets))
        request = DecodeRequest(tickets, done, len(tickets))
        self._requests.update(dict.fromkeys(tickets, request))
        self._coming[tickets[0].kind] += len(tickets)

    def coming(self, kind: RequestKind) -> int:
        """Images of that kind in requests of which any image is not decoded yet."""
        return self._coming[kind]

    def waiting(self, key: ModelKey) -> int:
        """The same of a model, for single and batch requests together."""
        return self._coming[key, False] + self._coming[key, True]

    def coming_s(self, key: ModelKey) -> float:
        """Seconds until all images of that model that wait now are decoded."""
        with self._changed:
            return self._backlog.predicted_wait_s(key, time.monotonic())

    def close(self) -> None:
        """End the threads, each after its image; what waits is not decoded."""
        if self._closed:
            return
        self._look_again.cancel()
        with self._changed:
            self._closed = True
            self._backlog.clear()
            self._changed.notify_all()
        error = DrainingError()
        requests, self._requests = dict.fromkeys(self._requests.values()), {}
        for request in requests:
            self._tell(request, dict.fromkeys(request.tickets, error))

    async def left(self) -> int:
        """After `close`: how many threads do not end, since they hang."""
        threads = [decoder.thread for decoder in self._decoders]
        within_s = min(self._hang_timeout_s, JOIN_S)
        return len(await asyncio.to_thread(join_all, threads, within_s=within_s))

    def _look(self) -> None:
        """Find threads that hang or have died, which report nothing.

        They hold what cannot be given to another thread: nobody knows whether they
        still write into it.
        """
        # of all, for each counts the looks
        still = [decoder for decoder in self._decoders if decoder.stands_still()]
        if still:
            self._give_up()
        else:
            self._look_again = self._loop.call_later(self._look_every_s, self._look)

    def _work(self, decoder: Decoder) -> None:
        """What each thread does until this is closed."""
        while cut := self._next():
            decoder.begun += 1
            self._serve(cut)
            decoder.ended += 1
            del cut  # an idle thread would keep its last image alive

    def _next(self) -> Cut | None:
        with self._changed:
            while not self._closed:
                cut = self._backlog.take(time.monotonic())
                if cut is not None:
                    return cut
                self._changed.wait()
        return None

    def _serve(self, cut: Cut) -> None:
        self._finished.extend((ticket, None) for ticket in cut.withdrawn)
        self._finished.extend(too_late(cut.expired))
        for ticket in cut.batch:  # one at most
            failed = self._decode(ticket)
            # to refuse a broken image takes less: it says nothing of the cost
            decode_s = ticket.ahead_s if failed is None else None
            with self._changed:
                self._backlog.finish(cut, decode_s=decode_s)
            self._finished.append((ticket, failed))
        if not self._called:
            self._called = True
            with suppress(RuntimeError):  # the loop has ended, nobody is left
                self._loop.call_soon_threadsafe(self._collect)

    def _decode(self, ticket: Ticket) -> Settled | None:
        began = time.monotonic()
        failed = decode_ticket(
            ticket, self._specs[ticket.model], limits=self._limits, keep=self._keep
        )
        if failed is None:
            ticket.ahead_s = time.monotonic() - began
        return failed

    def _collect(self) -> None:
        """Report the requests of which every ticket is finished."""
        self._called = False  # first: what is finished after the last look calls again
        while self._finished:
            ticket, failed = self._finished.popleft()
            request = self._requests.pop(ticket, None)
            if request is None:
                continue  # it was told when this was closed
            request.missing -= 1
            if failed is not None:
                request.failed[ticket] = failed
            if not request.missing:
                self._tell(request, request.failed)

    def _tell(self, request: DecodeRequest, failed: Failed) -> None:
        self._coming[request.tickets[0].kind] -= len(request.tickets)
        try:
            request.done(failed)
        except Exception as error:  # border: the other requests must hear all the same
            self._loop.call_exception_handler(
                {"message": "a request could not be told", "exception": error}
            )
