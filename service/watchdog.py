"""event loop → **its watchdog**: a process whose loop no longer turns is ended.

Whoever starts processes again, such as Docker, systemd or a leader, looks whether they
end. One whose loop stands still answers nobody and would live on: where several share a
port, `/livez` meets the others, and the first process of a container cannot be killed
by its members.
"""

import asyncio
import faulthandler
import os
import sys
import threading

# A process that is silent at so many looks in a row hangs, whoever looks. By the clock,
# every one would after a machine has stood still.
SILENT_LOOKS = 4
LEAST_S = 10.0  # the loop may stand still for so long, however short the hang timeout


class LoopWatchdog:
    """A thread that watches the loop of its process."""

    def __init__(self, hang_timeout_s: float) -> None:
        """About so long may the loop stand still, and never less than `LEAST_S`."""
        self._interval_s = max(hang_timeout_s, LEAST_S) / SILENT_LOOKS
        self._beats = 0
        self._stopped = threading.Event()
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch the loop that runs here, until `stop` or its end."""
        loop = asyncio.get_running_loop()
        self._beating = loop.create_task(self._beat())
        watch = threading.Thread(
            target=self._watch, args=(loop,), name="loop-watchdog", daemon=True
        )
        watch.start()

    def stop(self) -> None:
        """Watch no longer: the loop is about to end."""
        self._stopped.set()
        if self._beating is not None:
            self._beating.cancel()

    async def _beat(self) -> None:
        while True:
            self._beats += 1
            await asyncio.sleep(self._interval_s / 2)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        silent, seen = 0, 0
        while not self._stopped.wait(self._interval_s):
            if not loop.is_running():  # it has ended, and stands still for good
                return
            beats = self._beats
            silent, seen = 0 if beats != seen else silent + 1, beats
            if silent == SILENT_LOOKS:
                _end()


def _end() -> None:
    """Write the stack of every thread to stderr, then end at once."""
    try:
        _dump(sys.stderr.fileno())
    finally:
        os._exit(1)


def _dump(error: int) -> None:
    blocking = os.get_blocking(error)
    os.set_blocking(error, False)  # a log that is full may be why the loop stands still
    faulthandler.dump_traceback(error, all_threads=True)
    os.set_blocking(error, blocking)  # other processes may write to it, too
