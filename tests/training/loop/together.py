"""Two ranks, and one task after the other: `torchrun -m tests….together ROOT`.

Three processes that import torch take longer than all that is done in them.
"""

import sys
from pathlib import Path

from tests.training.loop import apart, disagreeing, locked, timed, uneven
from training.loop.distributed import start_ranks


def main(root: Path) -> None:
    """What each rank has to say, in lines that begin with the name of the task."""
    with start_ranks("cpu") as ranks:
        for task in (disagreeing, apart, uneven, timed, locked):
            name = task.__name__.rpartition(".")[2]
            said = task.train(root, ranks)
            sys.stdout.write(f"{name}, rank {ranks.rank}: {said}\n")
            sys.stdout.flush()  # also where a later task never ends


if __name__ == "__main__":
    main(Path(sys.argv[1]))
