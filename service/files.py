"""soft limit → **as many open files as may be**: each connection needs one."""

import sys
from contextlib import suppress

# Enough for any number of connections that one process can serve. Some systems allow a
# billion, and tables of that size are made of it.
MOST_FILES = 65_536


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
