"""network, optimizers, averages, position ↔ **state**: all that a checkpoint holds."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.configs.config import Config
from training.errors import CheckpointError, DivergedError
from training.loop.budget import Plan
from training.loop.checkpoint import load_network, read_state, write_checkpoint
from training.loop.origin import Origin
from training.loop.selection import Selection
from training.objectives.objective import Scores, better
from training.optimizers.ema import Lookahead, MovingAverage
from training.optimizers.optimizers import Optimizers


@dataclass
class State:
    """A run at one moment. `step` counts updates; the rest of its position follows."""

    config: Config
    network: nn.Module
    optimizers: Optimizers
    plan: Plan
    origin: Origin | None = None  # of the data; None: it is not kept
    step: int = 0
    seconds: float = 0.0  # of planning and training so far, over all starts
    best: float | None = None  # validation score
    best_loss: float = math.inf  # the lowest with that score
    looks_without_gain: int = 0
    ema: MovingAverage | None = None
    lookahead: Lookahead | None = None
    selection: Selection | None = None
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """Part of the training that is done, 0 to 1."""
        return self.plan.progress(self.step)

    def is_gain(self, scores: Scores) -> bool:
        """Whether these are better than the best so far, if only by their loss."""
        if self.best is None:
            return True
        name = next(iter(scores))
        return better(scores, {name: self.best, "loss": self.best_loss})

    def diverged(self, what: str, *, then: str = "") -> DivergedError:
        """The error for what is no number, with what to do about it."""
        rates = [config.learning_rate for config in self.config.optimizer]
        return DivergedError(
            f"{what} by step {self.step} of {self.plan.steps}; {then}lower "
            f"learning_rate (now {rates}), add warmup, or set train.clip_norm"
        )

    def write(self, path: Path) -> None:
        """Write a checkpoint; see `checkpoint.write_checkpoint`.

        Raises:
            DivergedError: a weight is no number any more; nobody could go on from it.
                The loss that this process sees need not have shown it.
        """
        for name, weight in self.network.named_parameters():
            if not weight.isfinite().all():
                raise self.diverged(
                    f"{name} has values that are no numbers",
                    then="the checkpoint before stays; ",
                )
        write_checkpoint(
            path,
            {
                **(self.origin.state() if self.origin else {}),
                "config": self.config.model_dump(mode="json"),
                "plan": self.plan.state(),
                "step": self.step,
                "seconds": self.seconds,
                "best": self.best,
                "best_loss": self.best_loss,
                "looks_without_gain": self.looks_without_gain,
                "network": self.network.state_dict(),
                "optimizers": self.optimizers.state_dict(),
                "ema": self.ema.averages if self.ema else {},
                "lookahead": self.lookahead.slow if self.lookahead else {},
                "selection": self.selection.state_dict() if self.selection else {},
                "best_weights": self.best_weights,
            },
        )

    def restore(self, saved: dict[str, Any], where: Path) -> None:
        """Go on from what `saved_run` has read."""
        load_network(self.network, saved["network"], str(where))
        self.optimizers.load_state_dict(saved["optimizers"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.best = saved["best"]
        self.best_loss = saved.get("best_loss", math.inf)  # older runs have none
        older = saved.get("epochs_without_gain", 0)
        self.looks_without_gain = saved.get("looks_without_gain", older)
        self.best_weights = saved["best_weights"]
        if self.ema is not None:
            self.ema.averages = saved["ema"]
        if self.lookahead is not None:
            self.lookahead.slow = saved["lookahead"]
        if self.selection is not None:
            self.selection.load_state_dict(saved["selection"])


def saved_run(
    path: Path, config: Config, origin: Origin | None, *, device: str
) -> dict[str, Any] | None:
    """The checkpoint of the same run to go on from, if there is one.

    Raises:
        CheckpointError: it belongs to another config or to other data, or cannot be
            read.
    """
    if not path.is_file():
        return None
    saved = read_state(path, device=device)
    check_same_run(saved, path, config, origin)
    return saved


def check_same_run(
    saved: dict[str, Any], path: Path, config: Config, origin: Origin | None
) -> None:
    """Compare the config and the data of a checkpoint with those of now.

    Raises:
        CheckpointError: it belongs to another config or to other data.
    """
    ours = config.model_dump(mode="json")
    differing = sorted(k for k in ours if saved.get("config", {}).get(k) != ours[k])
    if differing:
        raise CheckpointError(
            f"{path} was made with another config: {', '.join(differing)} differ; go "
            "on with the old config, or begin anew in another folder"
        )
    if origin is not None:
        origin.check(saved, path)


def saved_plan(saved: dict[str, Any]) -> Plan:
    """The plan that the run had then."""
    return Plan(**saved["plan"])
