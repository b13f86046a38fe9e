"""rows + minutes → **measured cells**: nine networks, one after the other.

Times a few steps of every network first, shares the minutes out, trains one network
after the other and writes the table after each. Interrupted, or carried to another
machine with its folder, it goes on with what is missing. Accuracy is of a single view,
after the last epoch, on the test split.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.cifar10_table.rows import (
    BATCH_SIZE,
    ROWS,
    Row,
    at_pace,
    config_of,
    share_out,
)
from training.cifar10_table.sheet import Sheet, emptied, load_sheet, looked, write_sheet
from training.configs.config import Config
from training.data import Split, load_dataset
from training.data.batches import Order, ResidentBatches
from training.data.stratify import hold_out
from training.loop.arithmetic import Precision, place
from training.loop.distributed import Ranks
from training.loop.loop import Room, fit
from training.loop.start import CHECKPOINT, timed_step
from training.loop.step import Steps
from training.loop.timing import time_step
from training.loop.validation import Validation
from training.networks import Network, build
from training.objectives.objective import Objective, build_objective
from training.provenance import circumstances

COMMAND = "python -m training.cifar10_table"


@dataclass(frozen=True)
class Bench:
    """What all networks share."""

    train: ResidentBatches
    test: Split
    objective: Objective
    ranks: Ranks
    precision: str
    compiled: bool
    batch_size: int

    def config(self, row: Row, *, epochs: int) -> Config:
        """A row's run on this device."""
        return config_of(
            row,
            epochs=epochs,
            batch_size=self.batch_size,
            precision=self.precision,
            compiled=self.compiled,
        )


def open_bench(arguments: argparse.Namespace, ranks: Ranks) -> Bench:
    """The data on the device, once for all networks."""
    dataset = load_dataset(arguments.data)
    train, test = dataset.train, dataset.parts["test"]
    if arguments.images is not None:
        train, test = (
            split.select(hold_out(split.labels, count=arguments.images, seed=0))
            for split in (train, test)
        )
    batch_size = min(BATCH_SIZE, len(train) // 2)
    shared = config_of(ROWS[0], epochs=1, batch_size=batch_size)
    batches = ResidentBatches(
        train.pixels(shared.data.spec),
        train.labels,
        Order(len(train), batch_size, seed=0),
        ranks.device,
    )
    return Bench(
        batches,
        test,
        build_objective(shared.task, labels=10, label_smoothing=0.1),
        ranks,
        "bf16" if ranks.device.type == "cuda" else "auto",
        arguments.compile,
        batch_size,
    )


def fill(arguments: argparse.Namespace, bench: Bench, deadline_s: float) -> None:
    """Train what is not measured yet; where minutes are given, time all of them first.

    Given epochs need no plan, and no time for one.
    """
    sheet = load_sheet(arguments.results, images=bench.train.samples)
    wanted = [row for row in ROWS if not arguments.only or row.label in arguments.only]
    if arguments.again:
        for row in wanted:
            forget(sheet, row, arguments.out)
    due = [row for row in wanted if sheet[row.label]["status"] != "measured"]
    write_sheet(arguments.results, sheet)
    if not due:
        labels = ", ".join(row.label for row in wanted)
        sys.stderr.write(f"{labels}: all measured; --again repeats them\n")
    costs: dict[str, float] = {}
    for row in due if arguments.epochs is None else ():
        costs[row.label] = seconds_an_epoch(row, bench)
        sys.stderr.write(f"{row.label}: {costs[row.label]:.2f} s an epoch\n")
    for row in due:
        left_s = deadline_s - time.monotonic()
        if costs and left_s < costs[row.label]:
            sys.stderr.write(f"{row.label}: no time left for an epoch, not run\n")
            del costs[row.label]
            continue  # a cheaper one may still fit
        cell = sheet[row.label]
        if cell["status"] == "begun":  # a checkpoint keeps the length it began with
            epochs = int(cell["epochs"])
        else:
            epochs = arguments.epochs or share_out(left_s, costs)[row.label]
        cell |= {"status": "begun", "epochs": epochs}
        write_sheet(arguments.results, sheet)
        cell |= run(row, bench, arguments.out, epochs=epochs)
        cell["looks"] = looked(cell)
        write_sheet(arguments.results, sheet)
        if costs:
            costs = at_pace(costs, row.label, cell["seconds"] / cell["epochs"])


def forget(sheet: Sheet, row: Row, out: Path) -> None:
    """Empty a measured cell and drop its run's checkpoint; others are left as they are.

    Its figures stay beside the new ones: whoever looks twice says so.

    A run that has only begun is not forgotten: `--again` that was cut off goes on.
    """
    if sheet[row.label]["status"] == "measured":
        sheet[row.label] = emptied(row, sheet[row.label])
        (out / row.network / CHECKPOINT).unlink(missing_ok=True)


def seconds_an_epoch(row: Row, bench: Bench) -> float:
    """Measured on some steps of the real training."""
    precision: Precision = "bf16" if bench.precision == "bf16" else "fp32"
    config = bench.config(row, epochs=1)
    steps = Steps(config, bench.objective, samples=bench.train.samples)
    network = fresh(row).train()
    place(network, bench.ranks.device)
    prepare = timed_step(config, steps, bench.train, bench.ranks)
    seconds = time_step(network, prepare, precision, 0.0, bench.ranks.device)
    return seconds * bench.train.steps()


def run(row: Row, bench: Bench, out: Path, *, epochs: int) -> dict[str, Any]:
    """Train one network, or go on with it, and measure it on the test split."""
    config = bench.config(row, epochs=epochs)
    network = fresh(row)
    outcome = fit(
        network,
        config,
        train=bench.train,
        validation=None,
        objective=bench.objective,
        room=Room(out / row.network, bench.ranks, sys.stderr),
    )
    test = Validation(
        bench.test, config.data, bench.objective, batch_size=bench.batch_size
    )
    labels = torch.tensor(bench.test.labels)
    plain = test.logits(network, "fp32")
    mirrored = test.logits(network, "fp32", mirrored=True)
    return {
        "status": "measured",
        "accuracy": percent(plain, labels),
        "accuracy_two_views": percent((plain + mirrored) / 2, labels),
        "seconds": round(outcome.seconds, 1),
        "train_images": bench.train.samples,
        "test_images": len(bench.test),
        "circumstances": circumstances(
            " ".join([COMMAND, *sys.argv[1:]]), gpu=bench.ranks.gpu
        ),
    }


def fresh(row: Row) -> Network:
    """The row's network with seeded weights."""
    torch.manual_seed(0)
    return build(row.network, classes=10, image_size=32, **row.options)


def percent(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy in percent."""
    return round(100 * (logits.argmax(1) == labels).double().mean().item(), 2)
