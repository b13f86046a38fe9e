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
# Part of the budget that is planned: not all steps are equally fast, and what is left
# suffices for the test split afterwards.
SAFETY = 0.92
FORWARD_SHARE = 1 / 3  # of a training step, whose backward pass costs twice as much

# A network, an arithmetic, how far the training has come → a training step.
Prepare = Callable[[nn.Module, Precision, float], Callable[[], None]]


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


def make_plan(
    network: nn.Module,
    prepare: Prepare,
    config: TrainConfig,
    ends: tuple[float, ...],
    work: Work,
) -> Plan:
    """Time what the config leaves open, and plan.

    `ends` are the parts of the training after which a step costs another time, because
    images grow or layers freeze; the last is 1.

    Raises:
        ConfigError: the minutes do not suffice for one step.
    """
    device = next(network.parameters()).device
    begins = (0.0, *ends[:-1])
    candidates: tuple[Precision, ...] = (
        ("fp32", "bf16") if config.precision == "auto" else (config.precision,)
    )
    measured: dict[str, float] = {}

    def cost(precision: Precision, begin: float) -> float:
        key = precision if len(ends) == 1 else f"{precision} from {begin:g}"
        if key not in measured:
            measured[key] = time_step(network, prepare, precision, begin, device)
        return measured[key]

    precision = candidates[0]
    if len(candidates) > 1:
        precision = min(candidates, key=lambda p: cost(p, begins[-1]))
    if config.minutes is None:
        steps = round((config.epochs or 0) * work.steps_per_epoch)
    else:
        costs = [
            (end, cost(precision, begin))
            for begin, end in zip(begins, ends, strict=True)
        ]
        steps = steps_within(config.minutes * 60, costs, work)
    if steps < 1:
        raise ConfigError(
            f"{config.minutes} minutes or {config.epochs} epochs is less than a step; "
            f"measured seconds a step: {measured}"
        )
    return Plan(steps, work.steps_per_epoch, precision, measured)


def steps_within(seconds: float, costs: list[tuple[float, float]], work: Work) -> int:
    """Steps that fit, with a validation after each epoch.

    `costs` are rows of (until which part of the training, seconds a step).
    """
    mean, begin = 0.0, 0.0
    for end, cost in costs:
        mean += (end - begin) * cost
        begin = end
    dearest = max(cost for _, cost in costs)  # whole images, all layers
    forward = dearest * FORWARD_SHARE / work.batch_size  # seconds an image
    a_step = mean + forward * work.validation_images / work.steps_per_epoch
    return int(seconds * SAFETY / a_step)


def time_step(
    network: nn.Module,
    prepare: Prepare,
    precision: Precision,
    progress: float,
    device: torch.device,
) -> float:
    """Median seconds of one training step on a copy of the network."""
    step = prepare(copy.deepcopy(network), precision, progress)
    seconds = []
    for _ in range(WARM_STEPS + TIMED_STEPS):
        started_s = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started_s)
    return sorted(seconds[WARM_STEPS:])[TIMED_STEPS // 2]
