"""Ranks whose clocks do not agree; `together.py` starts them.

To the last one, more of the time budget seems to be left. Layers freeze on the way, and
images are changed by chance.
"""

from pathlib import Path
from unittest.mock import patch

from training.configs.config import read_config
from training.loop import loop, step
from training.loop.arithmetic import seed_step
from training.loop.budget import usable_s
from training.loop.distributed import Ranks
from training.loop.loop import Room, fit
from training.loop.runs import prepare


def train(root: Path, ranks: Ranks) -> str:
    """Train by a budget; tell the steps, and whose chance has changed the images."""
    changes = ("train.minutes=0.08", "optimizer.0.until=0.5")
    config = read_config(root / "tiny.toml", changes)
    ready = prepare(config, root=root, ranks=ranks)
    drawn = set()

    def seed(run, number, rank, device):
        drawn.add(rank)
        return seed_step(run, number, rank, device)

    with (
        patch.object(loop, "usable_s", lambda minutes: usable_s(minutes) + ranks.rank),
        patch.object(step, "seed_step", seed),
    ):
        outcome = fit(
            ready.network, config, train=ready.batches, validation=None,
            objective=ready.objective, room=Room(root / "timed", ranks),
        )  # fmt: skip
    return f"{outcome.steps} steps, drawn by {drawn}"
