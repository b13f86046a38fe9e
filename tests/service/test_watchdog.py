"""A process whose event loop stands still is ended, so that it is started again."""

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from service.watchdog import LoopWatchdog
from tests.classifier.processes import python
from tests.service.conftest import running

STANDS_STILL = """
import asyncio, os, time
from service import watchdog

watchdog.LEAST_S = 0.2

async def serve():
    watchdog.LoopWatchdog(0.1).start()
    await asyncio.sleep(1.0)
    os.write(1, b"turned for five times as long")
    time.sleep(60)  # and now it does not

asyncio.run(serve())
"""


def test_a_process_whose_loop_stands_still_ends_and_says_where_it_stood():
    """Not before: as long as the loop turns, it is left alone."""
    ended = subprocess.run(
        [sys.executable, "-c", STANDS_STILL],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert ended.stdout == "turned for five times as long"
    assert "in serve" in ended.stderr
    assert ended.returncode == 1


def test_it_ends_though_nobody_reads_what_it_says():
    """A log that is full may be why the loop stands still."""
    full = "os.write(2, bytes(65_536))\nasyncio.run"  # what a pipe holds
    code = STANDS_STILL.replace("asyncio.run", full)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.wait(timeout=30) == 1


def test_it_ends_though_it_has_no_standard_error():
    """Whoever started it may have closed that."""
    ended = subprocess.run(  # noqa: S602 - a shell closes it
        f"exec {sys.executable} -c '{STANDS_STILL}' 2>&-",
        shell=True,
        check=False,
        timeout=30,
    )

    assert ended.returncode == 1


ENDS = """
import asyncio, time
from service import watchdog

watchdog.LEAST_S = 0.2

async def serve():
    watchdog.LoopWatchdog(0.1).start()

asyncio.run(serve())
time.sleep(1.0)
print("did something else")
"""


def test_a_process_may_do_something_else_after_its_loop():
    """One that has ended stands still, too, and nothing is wrong."""
    ended = python(ENDS)

    assert (ended.returncode, ended.stdout) == (0, "did something else\n")


@pytest.mark.parametrize(
    ("beats", "ends"),
    [([1, 1, 1, 1, 2, 2, 2, 2, 3], False), ([1, 1, 1, 1, 1, 2], True)],
    ids=["now and then", "in a row"],
)
def test_a_loop_that_stands_still_now_and_then_is_left_alone(monkeypatch, beats, ends):
    """Only one that is silent at four looks in a row is ended."""
    watchdog, looks, ended = LoopWatchdog(30.0), iter(beats), []

    def look(_: float) -> bool:
        watchdog._beats = next(looks, None)
        return watchdog._beats is None

    monkeypatch.setattr("service.watchdog._end", lambda: ended.append(True))
    monkeypatch.setattr(watchdog._stopped, "wait", look)
    watchdog._watch(SimpleNamespace(is_running=lambda: True))

    assert bool(ended) is ends


def test_a_service_is_watched_while_it_serves(settings_for):
    """Else one whose loop stands still would live on, and answer nobody."""
    before = set(threading.enumerate())
    with running(settings_for()):
        begun = [thread.name for thread in set(threading.enumerate()) - before]

    assert begun.count("loop-watchdog") == 1


async def test_a_loop_that_ends_is_watched_no_longer():
    """Its thread would end a process that has nothing wrong."""
    before = set(threading.enumerate())
    watchdog = LoopWatchdog(30.0)

    watchdog.start()
    [watches] = set(threading.enumerate()) - before
    watchdog.stop()
    watches.join(timeout=10)

    assert watches.name == "loop-watchdog"
    assert not watches.is_alive()
