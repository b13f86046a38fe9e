"""checkpoint → **measured truth**: the test split, once, on the graph that is served.

The network is exported and run by `classifier.session`, never by torch, so that what is
measured is what answers requests. The figures keep their circumstances: commit,
machine, versions, command.
"""

import json
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier.hardware import describe
from classifier.session import Session
from training.config import Config
from training.data import Split
from training.export import export_graph
from training.networks import Network
from training.tta import Pixels, average_logits

CHUNK = 500  # images
PACKAGES = ("torch", "numpy", "pillow", "onnx", "onnxruntime")


def export(network: Network, config: Config) -> bytes:
    """The network as the graph that is served."""
    return export_graph(
        network,
        shape=config.data.spec.shape,
        mean=config.data.mean,
        std=config.data.std,
        classes=network.head.out_features,
    )


def test_accuracy(graph: bytes, split: Split, config: Config) -> dict[str, float]:
    """Top-1 of the graph with one view and with the config's views."""
    pixels = split.pixels(config.data.spec)  # uint8 [N, H, W, C]
    session = Session.load(graph)
    started_s = time.perf_counter()
    single = _run(session, pixels, views=1)
    found = {
        "images": len(split),
        "accuracy": _right(single, split.labels),
        "seconds_single_view": round(time.perf_counter() - started_s, 1),
    }
    if config.evaluate.views > 1:
        started_s = time.perf_counter()
        averaged = _run(session, pixels, views=config.evaluate.views)
        found |= {
            "views": config.evaluate.views,
            "accuracy_views": _right(averaged, split.labels),
            "seconds_views": round(time.perf_counter() - started_s, 1),
        }
    return found


def circumstances(command: list[str]) -> dict[str, Any]:
    """What a figure needs beside it to be believed and repeated."""
    return {
        "command": " ".join(command),
        "commit": commit(),
        "machine": describe(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_results(path: Path, results: dict[str, Any]) -> None:
    """One JSON file, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def commit() -> str | None:
    """The commit of the checkout, with `+changes` if files differ from it."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - whichever git there is
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # an installed copy has no git
        return None


def _run(session: Session, pixels: Pixels, *, views: int) -> NDArray[np.float32]:
    pieces = [
        average_logits(session.run, pixels[start : start + CHUNK], count=views)
        for start in range(0, len(pixels), CHUNK)
    ]
    return np.concatenate(pieces)


def _right(logits: NDArray[np.float32], labels: NDArray[Any]) -> float:
    return float(np.mean(logits.argmax(1) == labels))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
