"""connections → **throughput**: the closed loop, by wrk, a native client.

wrk (`apt-get install wrk`) spends a few microseconds a request. The script beside this
file rotates it over several bodies, so that no cache of answers would help. A request
that failed is not counted in the rate.
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

SCRIPT = Path(__file__).with_suffix(".lua")


class WrkError(RuntimeError):
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
        command = [binary, "--threads", "1", "--connections", str(connections)]
        command += ["--duration", f"{max(round(seconds), 1)}s", "--timeout", "30s"]
        command += ["--script", str(SCRIPT), f"http://{target.host}:{target.port}"]
        command += ["--", first.path, first.content_type, folder, str(len(bodies))]
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
    per_s = good / (found["duration_us"] / 1e6)
    return Closed(
        requests_per_s=per_s,
        images_per_s=per_s * images,
        p50_ms=found["p50_us"] / 1e3,
        p95_ms=found["p95_us"] / 1e3,
        p99_ms=found["p99_us"] / 1e3,
        worst_ms=found["worst_us"] / 1e3,
        failed=sum(found[kind] for kind in kinds),
    )
