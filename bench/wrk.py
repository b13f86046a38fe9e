"""connections → **throughput**: the closed loop, by wrk, a native client.

wrk (`apt-get install wrk`) spends a few microseconds a request. The script beside this
file rotates it over several bodies, so that no cache of answers would help. A request
that failed is not counted in the rate.

Up to 32 connections each has a thread of its own, where the script notes what every
request took, but for those on their way at the end: of few and uneven requests the
longest are missing. More connections share a thread, for so many threads would cost a
part of what is measured; then the percentiles are wrk's own. It adds requests that
nobody sent where a latency is over twice the mean interval, so those of an uneven
server come out too long.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.bodies import Body
from bench.client import Target
from bench.ending import MeasurementError
from bench.latency import percentile

SCRIPT = Path(__file__).with_suffix(".lua")
APART_MOST = 32  # connections that have a thread each


class WrkError(MeasurementError):
    """wrk is absent or failed."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What a closed loop found; latencies in milliseconds."""

    requests_per_s: float
    images_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float
    failed: int  # other statuses than 2xx and 3xx, broken connections, timeouts
    requests: int  # answered in all, before the clock started too
    steady_images_per_s: float | None = None  # None: unknown, see `steady`


def saturate(
    bodies: Sequence[Body], target: Target, *, connections: int, seconds: float
) -> Closed:
    """Keep `connections` busy for `seconds`; all bodies must share path and dialect."""
    binary = shutil.which("wrk")
    if binary is None:
        raise WrkError("wrk is not installed: apt-get install wrk")
    first = bodies[0]
    if {(b.path, b.content_type, b.images) for b in bodies} != {
        (first.path, first.content_type, first.images)
    }:
        raise ValueError("all bodies of a closed loop have one path, type and size")
    with tempfile.TemporaryDirectory() as folder:
        for number, body in enumerate(bodies):
            Path(folder, f"{number}.body").write_bytes(body.content)
        apart = connections <= APART_MOST
        threads = connections if apart else 1
        command = [binary, "--threads", str(threads)]
        command += ["--connections", str(connections)]
        command += ["--duration", f"{max(round(seconds), 1)}s", "--timeout", "30s"]
        command += ["--script", str(SCRIPT), f"http://{target.host}:{target.port}"]
        command += ["--", first.path, first.content_type, folder, str(len(bodies))]
        command += ["apart"] if apart else []
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=seconds + 60
        )
    if done.returncode != 0:
        raise WrkError(f"wrk ended with {done.returncode}: {done.stderr[-500:]}")
    return read_report(done.stdout, images=first.images)


def warm(bodies: Sequence[Body], target: Target, *, connections: int) -> None:
    """Let the first seconds of a service pass, which are slower than any later ones."""
    saturate(bodies, target, connections=connections, seconds=2)


def read_report(output: str, *, images: int) -> Closed:
    """Read the JSON line that the script printed last."""
    line = output.strip().splitlines()[-1]
    found = json.loads(line)
    kinds = (
        "connect_errors",
        "read_errors",
        "write_errors",
        "timeouts",
        "bad_statuses",
    )
    good = found["requests"] - found["bad_statuses"]
    # Before its clock started, see the script: no part of the load.
    meanwhile = good * (1 - found["early"] / max(found["requests"], 1))
    per_s = meanwhile / (found["duration_us"] / 1e6)
    took_us = found["took_us"]  # of each connection that is apart
    each_us = [took for connection in took_us for took in connection]
    p50, p95, p99, worst = (
        percentile(each_us, percent) if each_us else found[f"{name}_us"]
        for name, percent in (("p50", 50), ("p95", 95), ("p99", 99), ("worst", 100))
    )
    steady_per_s = steady(took_us)
    if steady_per_s is not None:
        steady_per_s *= images * good / found["requests"]
    return Closed(
        requests_per_s=per_s,
        images_per_s=per_s * images,
        p50_ms=p50 / 1e3,
        p95_ms=p95 / 1e3,
        p99_ms=p99 / 1e3,
        worst_ms=worst / 1e3,
        failed=sum(found[kind] for kind in kinds),
        requests=found["requests"],
        steady_images_per_s=steady_per_s,
    )


def steady(took_us: Sequence[Sequence[float]]) -> float | None:
    """Requests a second of connections that never pause, without the ends of the load.

    What is on its way when a load ends is lost to a count over its duration. Large
    batches are answered in waves, one of each connection, and of seven waves a lost one
    is a seventh. So each connection's requests are counted over the time that they
    took, but for its first, which found an empty server. What is on its way tends to
    take long, so that uneven requests come out a little too fast: compare with the
    same.

    Args:
        took_us: of each connection, what its requests took, in microseconds.

    Returns:
        None where a connection had less than two, or where nothing was noted.
    """
    if not took_us or any(len(connection) < 2 for connection in took_us):
        return None
    later = [connection[1:] for connection in took_us]
    return sum(len(connection) / (sum(connection) / 1e6) for connection in later)


def steady_images_per_s(closed: Closed) -> float:
    """As `Closed` has it.

    Raises:
        WrkError: the load was too short for two requests of each connection.
    """
    if closed.steady_images_per_s is None:
        raise WrkError("not two requests of each connection: give it more seconds")
    return closed.steady_images_per_s


def answered(closed: Closed, what: str) -> Closed:
    """The same, where a rate of it means something.

    Raises:
        WrkError: the service answered nothing; it may refuse what takes it too long.
    """
    if closed.requests_per_s == 0:
        raise WrkError(f"no answer to {what}: {closed.failed} refused or broken")
    return closed
