"""tickets → **decoded tickets**, before the backlog: for a GPU, and in front-ends.

A GPU runs a batch in the time that a core decodes one photo, so its lanes must find
pixels ready. On a CPU lanes decode themselves, while the bytes are warm in their cache.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue

from classifier.decode import DecodeLimits
from classifier.manifest import PreprocessSpec
from service.contract import ModelKey, Settled
from service.engine.decoding import Keep, as_it_is, decode_ticket
from service.engine.ticket import Ticket
from service.errors import DrainingError, OverloadedError

# Weight of the newest image in the running mean of what decoding one takes.
COST_WEIGHT = 0.05
# Predictions err both ways; pixels that are ready too late were decoded for nothing.
SAFETY = 1.3

Failed = Mapping[Ticket, Settled]  # those that have no pixels, and why
Done = Callable[[Failed], None]


@dataclass(slots=True, eq=False)
class Job:
    """The tickets of one request, and whom to tell when all are over."""

    tickets: Sequence[Ticket]
    done: Done
    missing: int
    failed: dict[Ticket, Settled] = field(default_factory=dict)


class DecodeAhead:
    """Threads that decode, for one event loop, on which all of this is called.

    What they have finished goes back in one wake-up of the loop, however much it is.
    """

    def __init__(
        self,
        specs: Mapping[ModelKey, PreprocessSpec],
        *,
        limits: DecodeLimits,
        capacity: int,
        threads: int,
        keep: Keep = as_it_is,
    ) -> None:
        """`keep` is called in the decoding thread: what it returns is the ticket's."""
        self._specs = specs
        self._limits = limits
        self._capacity = capacity
        self._threads = threads
        self._keep = keep
        self._at_work = 0
        self._closed = False
        self._cost_s = 0.0  # of one image in one thread, learned
        self._loop = asyncio.get_running_loop()
        self._jobs: set[Job] = set()
        self._to_do: SimpleQueue[tuple[Job, Ticket] | None] = SimpleQueue()
        self._finished: deque[tuple[Job, Ticket, Settled | None]] = deque()
        self._called = False  # the loop will collect what is finished
        for number in range(threads):
            threading.Thread(
                target=self._work, name=f"decode-{number}", daemon=True
            ).start()

    def decode(self, tickets: Sequence[Ticket], done: Done) -> None:
        """Decode the tickets of one request; `done` is called once, and later.

        Raises:
            OverloadedError: as many images as may wait are being decoded, or these
                could not be before their deadline.
            DrainingError: it was closed.
        """
        self._admit(tickets)
        self._at_work += len(tickets)
        job = Job(tickets, done, len(tickets))
        self._jobs.add(job)
        for ticket in tickets:
            self._to_do.put((job, ticket))

    def waiting(self, key: ModelKey) -> int:
        """Images of that model on their way to pixels, those being decoded too."""
        jobs = (job.tickets for job in self._jobs if job.tickets[0].model == key)
        return sum(map(len, jobs))

    def close(self) -> None:
        """End the threads, each after its image; nothing that waits gets pixels."""
        if self._closed:
            return
        self._closed = True
        for _ in range(self._threads):
            self._to_do.put(None)
        error = DrainingError("the service is about to stop")
        jobs, self._jobs = self._jobs, set()
        for job in jobs:
            self._tell(job, dict.fromkeys(job.tickets, error))

    def _admit(self, tickets: Sequence[Ticket]) -> None:
        if self._closed:
            raise DrainingError("the service is about to stop")
        wait_s = self._at_work * self._cost_s / self._threads
        if self._at_work + len(tickets) > self._capacity:
            raise OverloadedError(
                f"{self._at_work} images are being decoded; at most "
                f"{self._capacity} may",
                retry_after_s=wait_s,
            )
        deadline = tickets[0].deadline
        if deadline is None or not self._at_work:
            return  # idle threads take all: only decoding corrects what was learned
        needed_s = SAFETY * (wait_s + len(tickets) * self._cost_s / self._threads)
        if time.monotonic() + needed_s > deadline:
            raise OverloadedError(
                f"decoding alone could take {needed_s:.2f} s, which is past the "
                "deadline",
                retry_after_s=wait_s,
            )

    def _work(self) -> None:
        """What each thread does until it is told to end."""
        while (entry := self._to_do.get()) is not None:
            job, ticket = entry
            self._finished.append((job, ticket, self._decode(ticket)))
            del entry, job, ticket  # an idle thread would keep its last image alive
            if not self._called:
                self._called = True
                with suppress(RuntimeError):  # the loop has ended, nobody is left
                    self._loop.call_soon_threadsafe(self._collect)

    def _decode(self, ticket: Ticket) -> Settled | None:
        if ticket.abandoned or self._closed:
            return None
        began = time.monotonic()
        failed = decode_ticket(
            ticket, self._specs[ticket.model], limits=self._limits, keep=self._keep
        )
        if failed is None:
            ticket.ahead_s = time.monotonic() - began
        return failed

    def _collect(self) -> None:
        """Tell of the requests that are over."""
        self._called = False  # first: what is finished after the last look calls again
        while self._finished:
            job, ticket, failed = self._finished.popleft()
            self._at_work -= 1
            job.missing -= 1
            if failed is not None:
                job.failed[ticket] = failed
            elif ticket.ahead_s:
                self._cost_s += COST_WEIGHT * (ticket.ahead_s - self._cost_s)
            if not job.missing and job in self._jobs:
                self._jobs.remove(job)
                self._tell(job, job.failed)

    def _tell(self, job: Job, failed: Failed) -> None:
        try:
            job.done(failed)
        except Exception as error:  # border: the other requests must hear all the same
            self._loop.call_exception_handler(
                {"message": "a request could not be told", "exception": error}
            )
