"""Ranks that time other numbers of steps: `torchrun -m tests….uneven ROOT`.

A clock ends the timing, and no two of them agree. Here the last rank takes a step more.
"""

import sys
from pathlib import Path

from training.configs.config import read_config
from training.loop import timing
from training.loop.distributed import start_ranks
from training.loop.loop import Room, fit
from training.loop.runs import prepare


def main(root: Path) -> None:
    """Train an epoch with a proxy, in what is timed to be fast, and print the steps."""
    changes = ("selection.proxy='lenet5'", "train.precision='auto'", "train.epochs=1")
    config = read_config(root / "tiny.toml", changes)
    with start_ranks("cpu") as ranks:
        timing.MOST_STEPS = 1 + ranks.rank
        ready = prepare(config, root=root, ranks=ranks)
        outcome = fit(
            ready.network, config, train=ready.batches, validation=None,
            objective=ready.objective, room=Room(root / "run", ranks),
            proxy=ready.proxy,
        )  # fmt: skip
    sys.stdout.write(f"rank {ranks.rank}: {outcome.steps} steps\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
