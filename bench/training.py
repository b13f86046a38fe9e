"""our loop against a plain one: **images a second** of training, on the same network.

    python -m bench.training

Each loop (see `training_loops`) lives in a process of its own, since ours tells the
allocator of its process to keep memory. They take turns, a round each, so that a slow
minute of the machine hits both; who waits sleeps. Reported are medians, and the ratio
of each pair of rounds.
"""

import multiprocessing
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bench.circumstances import versions, write_record
from bench.options import add_record, command_line
from bench.workloads import data_root
from classifier.hardware import available_cores

IMAGES = 10_000  # of train; more would change nothing but the start
WANTED = 3.0  # times the plain loop
PACKAGES = ("torch", "numpy", "pillow")


@dataclass(frozen=True)
class Work:
    """What both loops are given."""

    data: Path
    network: str
    batch_size: int
    seconds: float  # a round, at least


def answer_rounds(loop: str, work: Work, questions: Connection) -> None:
    """In a process of its own: build the loop, then a round for each question."""
    import torch  # noqa: PLC0415 - takes seconds, and only these processes need it

    from bench.training_loops import ROUNDS  # noqa: PLC0415
    from training.data import load_dataset  # noqa: PLC0415

    torch.set_num_threads(available_cores())
    split = load_dataset(work.data).train
    some = split.select(np.arange(min(IMAGES, len(split))))
    arithmetic, train = ROUNDS[loop](work.network, some, work.batch_size)
    questions.send(arithmetic)
    while questions.recv():
        questions.send(train(work.seconds))


@contextmanager
def loop_of(loop: str, work: Work) -> Iterator[tuple[str, Connection]]:
    """A running loop, warmed up, and what it computes in.

    Send True for the images a second of a round.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=answer_rounds, args=(loop, work, theirs))
    process.start()
    theirs.close()  # so that the end of the process ends a recv here
    try:
        yield ours.recv(), ours
        ours.send(False)
        process.join()
    finally:
        process.kill()
        process.join()


def compare(work: Work, *, rounds: int) -> dict[str, Any]:
    """Rounds of both by turns."""
    rates: dict[str, list[float]] = {"plain": [], "ours": []}
    with ExitStack() as stack:
        loops = {name: stack.enter_context(loop_of(name, work)) for name in rates}
        for number in range(rounds):
            for name, (_, connection) in loops.items():
                connection.send(True)
                rates[name].append(round(connection.recv(), 1))
            latest = ", ".join(f"{name} {found[-1]}" for name, found in rates.items())
            print(f"{work.network}, round {number + 1}: {latest} images/s", flush=True)
    pairs = zip(rates["plain"], rates["ours"], strict=True)
    ratios = [round(ours / plain, 2) for plain, ours in pairs]
    return {
        "batch_size": work.batch_size,
        "arithmetic": {name: arithmetic for name, (arithmetic, _) in loops.items()},
        "seconds_a_round": work.seconds,
        "images_per_s": rates,
        "median_images_per_s": {k: statistics.median(v) for k, v in rates.items()},
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    """Compare on each network, print the ratios and write the record."""
    parser = command_line("bench.training", __doc__)
    option = parser.add_argument
    option("--data", type=Path, default=data_root() / "cifar-10")
    option(
        "--networks", nargs="+", default=["lenet5", "fastcifar_94", "resnet18_cifar"]
    )
    option("--batch-size", type=int, default=128)
    option("--seconds", type=float, default=5.0, help="a round, at least")
    option("--rounds", type=int, default=5)
    add_record(parser, "training_speed.json")
    given = parser.parse_args()
    found = {
        name: compare(
            Work(given.data, name, given.batch_size, given.seconds),
            rounds=given.rounds,
        )
        for name in given.networks
    }
    for name, result in found.items():
        print(f"{name}: {result['ratio']} times the plain loop, wanted {WANTED}")
    facts = {"versions": versions(PACKAGES), "wanted_ratio": WANTED}
    write_record(given.json, facts | {"networks": found})


if __name__ == "__main__":
    main()
