"""lanes → **lanes that live**: opened, watched, replaced when they die or hang."""

import asyncio
import time
from collections.abc import Callable, Sequence
from threading import Thread

from structlog.typing import FilteringBoundLogger

from classifier.errors import SessionError
from service.engine.lane import Lane
from service.engine.ticket import Results
from service.errors import EngineFailedError

# A lane that hangs cannot be killed, only left behind with its memory and its core. It
# may come back: after a machine has stood still, every lane at work seems to hang.
MAX_LOST_LANES = 3
CHECKS_A_LIMIT = 4  # so a lane is found hanging at most a quarter late
# For the batch or decoding at work when a service stops; who waited has had an answer.
JOIN_S = 2.0

NO_LANE = "no lane is alive"
BROKEN = "no image can be run any more; the process should be restarted"
LATE = "the model did not finish in time"

OpenLane = Callable[[str, Callable[[Lane, BaseException], None]], Lane]


def join_all(threads: Sequence[Thread], *, within_s: float) -> list[Thread]:
    """Wait for threads to end, together so long; those that have not."""
    ends = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return [thread for thread in threads if thread.is_alive()]


class Lanes:
    """The lanes of one engine. All but `_died`, which a dying lane calls, run on its
    event loop.
    """

    def __init__(
        self,
        open_lane: OpenLane,
        *,
        hang_timeout_s: float,
        settle: Callable[[Results], None],
        give_up: Callable[[], None],
        log: FilteringBoundLogger,
    ) -> None:
        """`open_lane` makes one from its name and from whom to tell of its death.

        `give_up` is called when only a new process helps: so many hang for so long, or
        the device runs nothing any more.
        """
        self._open_lane = open_lane
        self._hang_timeout_s = hang_timeout_s
        self._settle = settle
        self._give_up = give_up
        self._log = log
        self._lanes: list[Lane] = []
        self._wanted = 0
        self._opened = 0
        self._broken = False  # the device runs nothing any more
        self._lost: dict[Lane, float] = {}  # those that hang, and when each was left
        # Why no image should come just now; None when all is well. Asked for at each
        # request, so it is kept and not worked out anew.
        self.trouble: str | None = NO_LANE
        self.watcher: Callable[[str | None], None] | None = None  # told of changes
        self._loop = asyncio.get_running_loop()
        self._watchdog = self._loop.create_task(self._watch())

    def open(self, lanes: int) -> None:
        """Have so many lanes: open those that are missing, close those in excess."""
        self._wanted = lanes
        self._refill()

    async def close(self) -> int:
        """End every lane after the batch at work, or leave it when that hangs.

        Answers how many are left.
        """
        self._watchdog.cancel()
        self._wanted = 0  # one that dies now needs nobody in its place
        lanes = list(self._lanes)
        for lane in lanes:
            lane.close()
        threads = [lane.thread for lane in lanes]
        within_s = min(self._hang_timeout_s, JOIN_S)
        alive = await asyncio.to_thread(join_all, threads, within_s=within_s)
        late = [lane for lane in lanes if lane.thread in alive]
        for lane in late:
            self._fail(lane, lane.began, LATE)
        return len(late) + sum(lane.thread.is_alive() for lane in self._lost)

    def _refill(self) -> None:
        """Have as many lanes as are wanted, unless too many hang."""
        self._lost = {
            lane: left for lane, left in self._lost.items() if lane.thread.is_alive()
        }
        if self._broken:
            self._tell(BROKEN)
            return
        if len(self._lost) >= MAX_LOST_LANES:
            self._tell(f"{len(self._lost)} lanes hang; the process should be restarted")
            return
        surplus, self._lanes = self._lanes[self._wanted :], self._lanes[: self._wanted]
        for lane in surplus:
            lane.close()
        refused: RuntimeError | None = None
        while len(self._lanes) < self._wanted:
            lane = self._open_lane(f"lane-{self._opened}", self._died)
            try:
                lane.start()
            except RuntimeError as error:  # no thread to be had: `_watch` tries again
                refused = error
                break
            self._opened += 1
            self._lanes.append(lane)
        self._tell(None if self._lanes else NO_LANE)
        if refused is not None:
            self._log.error("no thread for a lane", exc_info=refused)

    def _died(self, lane: Lane, error: BaseException) -> None:
        end = self._end if isinstance(error, SessionError) else self._bury
        self._loop.call_soon_threadsafe(end, lane)
        self._log.error("lane died", lane=lane.thread.name, exc_info=error)

    def _end(self, lane: Lane) -> None:
        """A lane has found that its device runs nothing any more."""
        self._broken = True
        self._bury(lane)
        self._give_up()

    def _bury(self, lane: Lane) -> None:
        """Go on without a lane that died."""
        self._fail(lane, lane.began, "a lane died")
        if lane in self._lanes:
            self._lanes.remove(lane)
            self._refill()

    def _leave(self, lane: Lane, began: float) -> None:
        """Go on without a lane that hangs, unless it has just finished."""
        if self._fail(lane, began, LATE):
            self._lanes.remove(lane)
            self._lost[lane] = time.monotonic()
            self._refill()
            self._log.error("lane hangs", lane=lane.thread.name)

    def _fail(self, lane: Lane, began: float | None, reason: str) -> bool:
        """Settle what a broken lane holds; False if it has gone on since `began`."""
        held = lane.abandon(began)
        self._settle([(ticket, EngineFailedError(reason)) for ticket in held or ()])
        return held is not None

    def _tell(self, trouble: str | None) -> None:
        changed, self.trouble = trouble != self.trouble, trouble
        if changed and self.watcher is not None:
            self.watcher(trouble)

    async def _watch(self) -> None:
        """Find lanes that hang, which report nothing, and replace what is missing."""
        while True:
            await asyncio.sleep(self._hang_timeout_s / CHECKS_A_LIMIT)
            now = time.monotonic()
            for lane in list(self._lanes):
                began = lane.began
                if not lane.thread.is_alive():
                    self._bury(lane)  # its death could not be told
                elif began is not None and now - lane.stepped > self._hang_timeout_s:
                    self._leave(lane, began)
            if self._lost or len(self._lanes) < self._wanted:
                self._refill()  # some may have come back, or may be had now
            many = len(self._lost) >= MAX_LOST_LANES
            if many and now - max(self._lost.values()) > self._hang_timeout_s:
                self._give_up()
