"""measurement → **record**: the figure with commit, machine, versions and command.

A number without its circumstances cannot be compared with the next one, so every
command of `bench/` that keeps a result writes it through `write_record`.
"""

import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from classifier import versions as installed
from classifier.hardware import affinity_cores, cpu_name

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "docs" / "results"

PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "pillow",
    "cykooz-resizer",
    "fastapi",
    "uvicorn",
    "torch",
)


UNKNOWN, CHANGED = "unknown", "+changes"  # of commits


def commit() -> str:
    """The checked-out commit, with `+changes` where tracked files differ from it.

    Records do not count: one that is written row by row would mark its own rows.
    Whoever copies the files to a GPU host without their history says it in GIT_COMMIT.
    """
    if said := os.environ.get("GIT_COMMIT"):
        return said
    try:
        head = _git("rev-parse", "HEAD")
        code = ("--", ".", ":!docs/results")
        changed = _git("status", "--porcelain", "--untracked-files=no", *code)
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return f"{head}{CHANGED}" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def machine() -> str:
    """Processor and cores that this process may use, for a person."""
    return f"{cpu_name()}, {affinity_cores()} cores, {platform.system()}"


@cache  # a record is written row by row
def gpu() -> str | None:
    """Name and driver of each NVIDIA GPU, as its driver tells; None without one."""
    binary = shutil.which("nvidia-smi")
    if binary is None:
        return None
    query = [binary, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, check=False, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() if done.returncode == 0 else []
    return "; ".join(lines) or None


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    return {"python": platform.python_version(), **installed.versions(packages)}


def command() -> str:
    """The command line that started this process, as it is typed in the checkout."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = f"-m {spec.name}" if spec else Path(sys.argv[0]).name
    arguments = shlex.join(sys.argv[1:])
    return f"python {name.removesuffix('.__main__')} {arguments}".strip()


def circumstances() -> dict[str, Any]:
    """What a figure needs beside it, taken now."""
    return {
        "commit": commit(),
        "machine": machine(),
        "gpu": gpu(),
        "versions": versions(),
        "command": command(),
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def finite(value: Any) -> Any:
    """The same with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_record(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result` with its circumstances as JSON, whole or not at all.

    A device (`/dev/null`, or `/dev/stdout`, which may lead to a file) is written to as
    it is: for root, a file would take its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    record = finite({**circumstances(), **result})
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    in_dev = path.absolute().is_relative_to("/dev")
    if in_dev or (path.exists() and not path.is_file()):
        path.write_text(text, encoding="utf-8")
        return
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
