"""Ranks that see other validation scores; `together.py` starts them.

To the first one every epoch is better than the one before, to the others none is.
"""

from pathlib import Path

from training.configs.config import read_config
from training.loop.distributed import Ranks
from training.loop.loop import Room, fit
from training.loop.runs import prepare
from training.loop.validation import Validation


class Biased(Validation):
    """Scores by the rank, and not by the network."""

    first: bool
    epoch = 0

    def scores(self, network, precision):
        """Better each time, or always the same."""
        self.epoch += 1
        return {"accuracy": self.epoch / 10 if self.first else 0.5, "loss": 0.0}


def train(root: Path, ranks: Ranks) -> str:
    """Train four epochs with the patience of one, and tell the steps taken."""
    config = read_config(root / "tiny.toml", ("train.patience=1",))
    ready = prepare(config, root=root, ranks=ranks)
    watched = Biased(
        ready.splits.validation, config.data, ready.objective, batch_size=20
    )
    watched.first = ranks.first
    outcome = fit(
        ready.network, config, train=ready.batches, validation=watched,
        objective=ready.objective, room=Room(root / "disagreeing", ranks),
    )  # fmt: skip
    return f"{outcome.steps} steps"
