"""Ranks that see other validation scores: `torchrun -m tests….disagreeing ROOT`.

To the first one every epoch is better than the one before, to the others none is.
"""

import sys
from pathlib import Path

from training.configs.config import read_config
from training.loop.distributed import start_ranks
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


def main(root: Path) -> None:
    """Train four epochs with the patience of one, and print the steps taken."""
    config = read_config(root / "tiny.toml", ("train.patience=1",))
    with start_ranks("cpu") as ranks:
        ready = prepare(config, root=root, ranks=ranks)
        watched = Biased(
            ready.splits.validation, config.data, ready.objective, batch_size=20
        )
        watched.first = ranks.first
        outcome = fit(
            ready.network, config, train=ready.batches, validation=watched,
            objective=ready.objective, room=Room(root / "run", ranks),
        )  # fmt: skip
    sys.stdout.write(f"rank {ranks.rank}: {outcome.steps} steps\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
