"""settings → **our service, running**: what the benches of its behavior start."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.bodies import Body
from bench.client import Target
from bench.launch import descendants, free_port, running


@dataclass(frozen=True, slots=True)
class Service:
    """A running `linnaeus serve`."""

    target: Target
    process: subprocess.Popen[bytes]

    def usage(self) -> "Usage":
        """Memory, threads and open files of the process and its children, now."""
        pids = [self.process.pid, *descendants(self.process.pid)]
        each = [_usage(pid) for pid in pids]
        return Usage(
            rss_mb=sum(u.rss_mb for u in each),
            threads=sum(u.threads for u in each),
            files=sum(u.files for u in each),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds."""

    rss_mb: float
    threads: int
    files: int


def _usage(pid: int) -> Usage:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return Usage(
        rss_mb=int(fields["VmRSS"].split()[0]) / 1024,
        threads=int(fields["Threads"]),
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
    )


@contextlib.contextmanager
def serving(
    models: Path, names: str, *, probe: Body, settings: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Serve the bundles `names` of `models`, as a user would, plus `settings`.

    Args:
        models: the folder of bundles.
        names: which, separated by commas; the first is the default.
        probe: a request that is answered with 2xx once the service is ready.
        settings: variables such as LINNAEUS_REQUEST_TIMEOUT_MS.
    """
    port = free_port()
    environment = {
        "LINNAEUS_HOST": "127.0.0.1",
        "LINNAEUS_PORT": str(port),
        "LINNAEUS_MODELS": str(models),
        "LINNAEUS_LOAD": names,
        "LINNAEUS_DEVICE": "cpu",  # as the limit; only `gpu_serving` says otherwise
        "LINNAEUS_DEFAULT_MODEL": names.split(",", maxsplit=1)[0],
        **(settings or {}),
    }
    command = [sys.executable, "-m", "cli", "serve"]
    with running(command, environment, port=port, probe=probe) as (target, process):
        yield Service(target, process)
