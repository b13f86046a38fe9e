"""Ranks whose folder another training holds; `together.py` starts them."""

from pathlib import Path

from training.configs.config import read_config
from training.errors import CheckpointError
from training.loop import runs
from training.loop.distributed import Ranks

FOLDER = "locked"  # below ROOT


def train(root: Path, ranks: Ranks) -> str:
    """Say what keeps this rank from training."""
    config = read_config(root / "tiny.toml", ("train.epochs=1",))
    try:
        runs.train(config, root=root, folder=root / FOLDER, ranks=ranks, live=None)
    except CheckpointError as error:
        return str(error)
    return "trained"
