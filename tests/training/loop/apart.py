"""Ranks that see other disks: `torchrun -m tests….apart ROOT`.

Each has a run folder of its own below ROOT, by the name of its rank.
"""

import sys
from pathlib import Path

from training.configs.config import read_config
from training.errors import CheckpointError
from training.loop.distributed import start_ranks
from training.loop.loop import Room, fit
from training.loop.runs import prepare


def main(root: Path) -> None:
    """Train an epoch, or say what keeps this rank from it."""
    config = read_config(root / "tiny.toml", ("train.epochs=1",))
    with start_ranks("cpu") as ranks:
        ready = prepare(config, root=root, ranks=ranks)
        try:
            fit(
                ready.network, config, train=ready.batches, validation=None,
                objective=ready.objective, room=Room(root / str(ranks.rank), ranks),
            )  # fmt: skip
        except CheckpointError as error:
            sys.stdout.write(f"rank {ranks.rank}: {error}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
