"""a few timed steps → **plan**: the arithmetic that pays here, and how many epochs.

Measured on a throwaway copy of the network, so that nothing of it remains. The plan
goes into the checkpoint: a run that goes on keeps the length it was planned with.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from training.configs.sections import TrainConfig
from training.errors import ConfigError
from training.loop.arithmetic import Precision

WARM_STEPS, TIMED_STEPS = 2, 3
SAFETY = 0.92  # part of the budget that is planned: not all steps are equally fast
FORWARD_SHARE = 1 / 3  # of a training step, whose backward pass costs twice as much

# A network, an arithmetic, a side of the images (None: as they come) → a training step.
Prepare = Callable[[nn.Module, Precision, int | None], Callable[[], None]]
Sizes = tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Plan:
    """How long, and in which arithmetic."""

    steps: int
    steps_per_epoch: int
    precision: Precision
    measured: dict[str, float]  # what was timed, in seconds a step

    @property
    def epochs(self) -> float:
        """The length in epochs; the last one may be a part."""
        return self.steps / self.steps_per_epoch

    def state(self) -> dict[str, object]:
        """Plain values, for the checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """What a plan must provide for, besides the steps."""

    steps_per_epoch: int
    batch_size: int
    validation_images: int
    final_images: int  # forward passes after the training, such as six views of test


def make_plan(
    network: nn.Module, prepare: Prepare, config: TrainConfig, sizes: Sizes, work: Work
) -> Plan:
    """Time what the config leaves open, and plan.

    Raises:
        ConfigError: the minutes do not suffice for one step.
    """
    device = next(network.parameters()).device
    sides = tuple(dict.fromkeys(side for _, side in sizes)) or (None,)
    candidates: tuple[Precision, ...] = (
        ("fp32", "bf16") if config.precision == "auto" else (config.precision,)
    )
    measured: dict[str, float] = {}
    last = sides[-1]
    if len(candidates) > 1 or config.minutes is not None:
        for precision in candidates:
            seconds = time_step(network, prepare, precision, last, device)
            measured[_key(precision, last)] = seconds
    precision = min(candidates, key=lambda p: measured.get(_key(p, last), 0.0))
    if config.minutes is None:
        steps = round((config.epochs or 0) * work.steps_per_epoch)
    else:
        for side in sides[:-1]:
            seconds = time_step(network, prepare, precision, side, device)
            measured[_key(precision, side)] = seconds
        costs = [(end, measured[_key(precision, side)]) for end, side in sizes] or [
            (1.0, measured[_key(precision, last)])
        ]
        steps = steps_within(config.minutes * 60, costs, work)
    if steps < 1:
        raise ConfigError(
            f"{config.minutes} minutes or {config.epochs} epochs is less than a step; "
            f"measured seconds a step: {measured}"
        )
    return Plan(steps, work.steps_per_epoch, precision, measured)


def steps_within(seconds: float, costs: list[tuple[float, float]], work: Work) -> int:
    """Steps that fit, with a validation after each epoch and a last evaluation.

    `costs` are rows of (until which part of the training, seconds a step).
    """
    mean, begin = 0.0, 0.0
    for end, cost in costs:
        mean += (end - begin) * cost
        begin = end
    forward = costs[-1][1] * FORWARD_SHARE / work.batch_size  # seconds an image
    left = seconds * SAFETY - forward * work.final_images
    a_step = mean + forward * work.validation_images / work.steps_per_epoch
    return int(left / a_step)


def time_step(
    network: nn.Module,
    prepare: Prepare,
    precision: Precision,
    side: int | None,
    device: torch.device,
) -> float:
    """Median seconds of one training step on a copy of the network."""
    step = prepare(copy.deepcopy(network), precision, side)
    seconds = []
    for _ in range(WARM_STEPS + TIMED_STEPS):
        started_s = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started_s)
    return sorted(seconds[WARM_STEPS:])[TIMED_STEPS // 2]


def _key(precision: Precision, side: int | None) -> str:
    return precision if side is None else f"{precision} at {side}"
