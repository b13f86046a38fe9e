"""Ranks that see other disks; `together.py` starts them.

Each has a run folder of its own below ROOT, by the name of its rank.
"""

from pathlib import Path

from training.configs.config import read_config
from training.errors import CheckpointError
from training.loop.distributed import Ranks
from training.loop.loop import Room, fit
from training.loop.runs import prepare


def train(root: Path, ranks: Ranks) -> str:
    """Train an epoch, or say what keeps this rank from it."""
    config = read_config(root / "tiny.toml", ("train.epochs=1",))
    ready = prepare(config, root=root, ranks=ranks)
    try:
        fit(
            ready.network, config, train=ready.batches, validation=None,
            objective=ready.objective, room=Room(root / str(ranks.rank), ranks),
        )  # fmt: skip
    except CheckpointError as error:
        return str(error)
    return "trained"
