"""command → **running server**: started, asked until it answers, and stopped."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bodies import Body
from bench.circumstances import REPOSITORY
from bench.client import Target
from bench.ending import MeasurementError, ended_by_signals

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
ASK_EVERY_S = 0.1
MAX_ERRORS = 150  # some answer 404 or 503 for seconds while they start


class LaunchError(MeasurementError):
    """A server did not start, or answers something else than the bundle does."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def inherited() -> dict[str, str]:
    """The variables of this process without the service's settings.

    A setting that somebody's shell happens to have would pass for its default.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LINNAEUS_") or name == "LINNAEUS_DATA"
    }


@contextlib.contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    port: int,
    probe: Body,
) -> Iterator[tuple[Target, subprocess.Popen[bytes]]]:
    """Start a server, wait for the first 2xx to `probe`, and stop it at the end.

    Raises:
        LaunchError: it ended by itself, or did not answer in time; with its last words.
    """
    with tempfile.TemporaryFile() as log, ended_by_signals():
        process = subprocess.Popen(
            command,
            env={**inherited(), **environment},
            cwd=REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children can be ended with it
        )
        target = Target("127.0.0.1", port)
        try:
            _await_answer(process, target, probe, log)
            yield target, process
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; what is left of its process group after that is killed."""
    try:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
    finally:  # at once, where a second Ctrl-C ends the patience
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await_answer(
    process: subprocess.Popen[bytes], target: Target, probe: Body, log: Any
) -> None:
    started_s, errors = time.monotonic(), 0
    while time.monotonic() - started_s < START_TIMEOUT_S:
        if process.poll() is not None:
            raise LaunchError(f"ended with {process.returncode}: {_last_words(log)}")
        try:
            ask(target, probe)
            return
        except urllib.error.HTTPError as error:
            errors += 1
            if errors > MAX_ERRORS:
                raise LaunchError(f"answers {error}: {_last_words(log)}") from error
        except OSError:  # not listening yet
            pass
        time.sleep(ASK_EVERY_S)
    raise LaunchError(f"no answer in {START_TIMEOUT_S:.0f} s: {_last_words(log)}")


def _last_words(log: Any) -> str:
    log.seek(0)
    return str(log.read()[-2000:].decode(errors="replace"))


def ask(target: Target, body: Body, *, timeout_s: float = 30.0) -> Any:
    """One request; its JSON answer. Raises urllib's HTTPError for other statuses."""
    request = urllib.request.Request(
        f"http://{target.host}:{target.port}{body.path}",
        data=body.content,
        headers={"Content-Type": body.content_type},
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
        return json.load(answer)


def best_prediction(answer: Any) -> tuple[int, float]:
    """Class index and score that an answer puts first, in any peer's wrapping.

    (-1, 0) where the model abstained.
    """
    if isinstance(answer, list):  # BentoML's batchable API answers with a list
        answer = answer[0]
    if not answer["predictions"]:
        return -1, 0.0
    best = answer["predictions"][0]
    return int(best["index"]), float(best["score"])


def check_answers(
    target: Target, bodies: Sequence[Body], expected: Sequence[tuple[int, float]]
) -> None:
    """Refuse to measure a server that answers something else.

    Raises:
        LaunchError: naming the first image that differs.
    """
    for number, (body, (index, score)) in enumerate(zip(bodies, expected, strict=True)):
        found = best_prediction(ask(target, body))
        if found[0] != index or abs(found[1] - score) > SCORE_TOLERANCE:
            raise LaunchError(
                f"image {number}: answered {found}, the bundle says {(index, score)}"
            )


# Batches and thread counts change the order of float32 sums.
SCORE_TOLERANCE = 1e-3


def processor_s(process: subprocess.Popen[bytes]) -> float:
    """Processor time that the process and its living descendants have had (Linux)."""
    total = 0
    for pid in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            fields = stat.rpartition(")")[2].split()  # from the third on: proc(5)
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    """Proportional memory of the process and its descendants, in MB (Linux)."""
    total_kb = 0
    for pid in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kb += int(line.split()[1])
    return total_kb / 1024


def descendants(pid: int) -> list[int]:
    """All children of a process, theirs included (Linux)."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found
