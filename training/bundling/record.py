"""run + bundle → **record**: the figures of an export, with what a reader must know.

The test split is opened when a bundle is made, so this is where its figures come from.
"""

import json
from pathlib import Path
from typing import Any

from training.bundling.figures import Bundled
from training.bundling.from_run import trained_on
from training.loop.checkpoint import read_finished
from training.loop.runs import FINAL
from training.provenance import circumstances
from training.transfer.transfer import RECORD


def record_of(run: Path, bundled: Bundled, command: str) -> dict[str, Any]:
    """Everything that docs/results keeps of a training and its bundle.

    Raises:
        CheckpointError: `run` holds no finished training.
    """
    saved = read_finished(run / FINAL)
    now = circumstances(command)
    transfer = run / RECORD
    return {
        **bundled.as_json(),
        "validation": saved["scores"],
        "transfer": json.loads(transfer.read_text()) if transfer.is_file() else None,
        "training_seconds": round(float(saved["seconds"]), 1),
        "training_hardware": trained_on(saved, exporter=now["machine"]),
        "training_commit": saved.get("commit"),
        "training_versions": saved.get("versions"),
        "epochs": float(saved["epochs"]),
        "precision": saved["precision"],
        **now,
        "config": saved["config"],
    }
