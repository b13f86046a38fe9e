"""here and now → **circumstances**: what a figure needs beside it to be believed."""

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from classifier.hardware import describe
from classifier.texts import as_utf8
from classifier.versions import versions
from training.files import write_whole

PACKAGES = ("torch", "numpy", "pillow", "cykooz-resizer", "onnx", "onnxruntime")


def circumstances(command: str, *, gpu: str | None = None) -> dict[str, Any]:
    """Command, commit, machine, versions and time.

    `gpu` is what was computed on: not every one that is there is used.
    """
    return {
        "command": command,
        "commit": commit(),
        "machine": describe(),
        "gpu": gpu,
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def installed(found: dict[str, Any]) -> dict[str, str]:
    """The versions of a run, which once named packages that were not there, too."""
    return {name: v for name, v in found["versions"].items() if v is not None}


def command_line() -> str:
    """What was typed."""
    return as_utf8(shlex.join(["linnaeus", *sys.argv[1:]]))


def write_results(path: Path, results: dict[str, Any]) -> None:
    """One JSON file, whole or not at all. Raises DiskError."""
    write_whole(path, json.dumps(results, indent=2) + "\n")


def commit(file: Path = Path(__file__)) -> str | None:
    """The commit of the checkout, with `+changes` where training differs from it.

    Whoever copies the files to a GPU host without their history says it in GIT_COMMIT.
    An installed copy has none, though it may lie inside the checkout of something else:
    the commit is only that of a file that it contains.
    """
    if said := os.environ.get("GIT_COMMIT"):
        return said

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - whichever git there is
            cwd=file.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", file.name)
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # an installed copy has no git
        return None
