"""error or signal → **ending**: servers are stopped, and a person reads one line.

A server of a measurement has a session of its own, so that its children can be ended
with it. A signal to the measurement does not reach it: whoever is told to end has to
stop it first.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from classifier.errors import ClassifierError

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # the second when a terminal is closed


class MeasurementError(Exception):
    """What was asked for cannot be measured; the text is for a person."""


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """A measurement that is told to end raises SystemExit, instead of just dying.

    Told again, it goes on ending. Only the main thread may say so; elsewhere a signal
    does what it did before. One that is ignored, as under nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    before = {
        each: signal.getsignal(each)
        for each in SIGNALS
        if signal.getsignal(each) is not signal.SIG_IGN
    }
    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def command(main: Callable[[], int]) -> int:
    """The exit code of a command: its own, 2 if it cannot measure, 130 after Ctrl-C."""
    try:
        with ended_by_signals():
            return main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (MeasurementError, ClassifierError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
