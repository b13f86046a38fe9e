"""a run's folder → **lock**: one training at a time writes there.

The system holds the lock and lets go of it when the process ends, also by a kill. Its
file stays behind: whoever removed it could take it from one that has just opened it.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from training.errors import CheckpointError
from training.loop.distributed import Ranks

LOCK = "run.lock"  # holds the number of the process
OURS, NO_LOCKS, UNKNOWN = 0, -1, -2  # no process has such a number

_HELD: set[int] = set()  # descriptors, each with a lock


def _let_go(descriptor: int) -> None:
    if descriptor in _HELD:
        _HELD.remove(descriptor)
        os.close(descriptor)


def _let_go_of_all() -> None:
    for descriptor in tuple(_HELD):
        _let_go(descriptor)


# A process that loads images has our descriptors, and lives for seconds after a kill.
# Once, on import: it cannot be taken back, and closes only what we hold.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_all)


@contextmanager
def alone_in(folder: Path, ranks: Ranks) -> Iterator[bool]:
    """Inside, no other training writes to `folder`; gives whether that is certain.

    The first rank takes the lock: to the others nothing is certain. Where locks cannot
    be had (Windows, some network disks, a file of somebody else), one goes on without.

    Raises:
        CheckpointError: another training writes there; on every rank.
    """
    with ExitStack() as until_the_end:
        taken = _take(folder / LOCK, until_the_end) if ranks.first else OURS
        holder = int(ranks.agree(taken))
        if holder not in (OURS, NO_LOCKS):
            process = "" if holder == UNKNOWN else f" (process {holder})"
            raise CheckpointError(
                f"another training{process} is writing to {folder}; give another "
                "--out, or wait"
            )
        yield ranks.first and holder == OURS


def _take(path: Path, until_the_end: ExitStack) -> int:
    """OURS, NO_LOCKS, or the number of the process that holds the lock."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        return NO_LOCKS
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        _HELD.add(descriptor)
        until_the_end.callback(_let_go, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.read(descriptor, 20)
        return int(number) if number.isdigit() else UNKNOWN
    except OSError:  # what else the disk refuses is told where something is written
        return NO_LOCKS
    with suppress(OSError):  # on a full disk it is held all the same
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    return OURS
