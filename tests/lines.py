"""work → **lines of Python** that it executes: a cost without a clock."""

import gc
import sys
from collections.abc import Callable


def lines_executed(work: Callable[[], object]) -> int:
    """How many lines, in everything that it calls.

    The collector waits meanwhile: it would run what other tests have left to be run
    with it, at moments of its own choice.
    """
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace

    collected = gc.isenabled()
    gc.disable()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
        if collected:
            gc.enable()
    return count
