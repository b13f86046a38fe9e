"""soft limit → **as many open files as may be**: each connection needs one."""

import sys
from contextlib import suppress

# Enough for any number of connections that one process can serve. Some systems allow a
# billion, and tables of that size are made of it.
MOST_FILES = 65_536
# Beside connections: listeners, pipes, devices, bundles, and sockets that close.
OTHER_FILES = 64


def raise_descriptors() -> None:
    """Let this process, and those that it starts, open what the system allows.

    The soft limit is often 1024, for programs that still call `select`.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not there on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def connections_within(most: int) -> int:
    """At most so many connections, and fewer where the limit on files is lower."""
    if sys.platform == "win32":
        return most
    import resource  # noqa: PLC0415 - not there on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    return min(most, max(soft - OTHER_FILES, 1))
