"""nine networks + minutes → **the CIFAR-10 table**, each cell measured or marked.

    python -m training.cifar10_table --minutes 25

Needs torch, NumPy, Pillow, pydantic and ONNX Runtime (which `classifier` imports) only.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from training.cifar10_table.rows import ROWS
from training.cifar10_table.table import COMMAND, fill, open_bench
from training.errors import TrainingError
from training.loop.arithmetic import keep_memory
from training.loop.distributed import start_ranks

RESERVE = 0.05  # part of the minutes that is kept for evaluation and start-up


def main() -> None:
    """Read the command line and fill the table."""
    arguments = parse_arguments()
    deadline_s = time.monotonic() + arguments.minutes * 60 * (1 - RESERVE)
    try:
        with start_ranks(arguments.device) as ranks:
            keep_memory()
            torch.backends.cudnn.benchmark = True  # all batches have one shape
            bench = open_bench(arguments, ranks)
            fill(arguments, bench, deadline_s)
    except TrainingError as error:
        sys.exit(f"linnaeus: {error}")


def parse_arguments() -> argparse.Namespace:
    """The options, described by --help."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=(__doc__ or "").split("\n\n")[0]
    )
    option = parser.add_argument
    option("--minutes", type=float, default=25.0, help="for all networks together")
    option("--epochs", type=int, help="of each network, instead of the minutes")
    sets = Path(os.environ.get("LINNAEUS_DATA", "../shared/data"))
    option("--data", type=Path, default=sets / "cifar-10")
    option("--out", type=Path, default=Path("runs/cifar10_table"), help="checkpoints")
    option("--results", type=Path, default=Path("docs/results/cifar10_table.json"))
    option("--images", type=int, help="only so many, to prove the command itself")
    option("--device", default="auto")
    option("--compile", action="store_true", help="fuse kernels, on CUDA only")
    option("--again", action="store_true", help="what has been measured already, too")
    option("--only", nargs="*", choices=[row.label for row in ROWS], metavar="LABEL")
    return parser.parse_args()


if __name__ == "__main__":
    main()
