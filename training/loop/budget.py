"""a few timed steps → **plan**: the arithmetic that pays here, and how many epochs.

Measured on a throwaway copy of the network, so that nothing of it remains. The plan
goes into the checkpoint: a run that goes on keeps the length it was planned with.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, cast

import torch
from torch import nn

from training.configs.sections import TrainConfig
from training.errors import ConfigError
from training.loop.arithmetic import Precision
from training.loop.convolutions import has_deep, use_products

WARM_STEPS, TIMED_STEPS = 2, 5
# Part of the budget that is planned: not all steps are equally fast, and what is left
# suffices for the test split afterwards.
SAFETY = 0.92
FORWARD_SHARE = 1 / 3  # of a training step, whose backward pass costs twice as much

# A network, an arithmetic, how far the training has come → a training step.
Prepare = Callable[[nn.Module, Precision, float], Callable[[], None]]


class Way(NamedTuple):
    """An arithmetic, and whether deep convolutions have their gradients by products."""

    precision: Precision
    products: bool = False  # see `convolutions.py`

    def __str__(self) -> str:
        return f"{self.precision} with products" if self.products else self.precision


@dataclass(frozen=True)
class Plan:
    """How long, and in which arithmetic."""

    steps: int
    steps_per_epoch: int
    precision: Precision
    measured: dict[str, float]  # what was timed, in seconds a step
    products: bool = False

    @property
    def way(self) -> Way:
        """What a step is computed with."""
        return Way(self.precision, self.products)

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
    begins = (0.0, *ends[:-1])
    clock = _Clock(network, prepare, phases=len(ends))
    way, *others = ways(config.precision, network, clock.device)
    if others:
        way = clock.cheapest((way, *others), begins[-1])
    if config.minutes is None:
        steps = round((config.epochs or 0) * work.steps_per_epoch)
    else:
        costs = [
            (end, clock.cost(way, begin))
            for begin, end in zip(begins, ends, strict=True)
        ]
        steps = steps_within(config.minutes * 60, costs, work)
    if steps < 1:
        raise ConfigError(
            f"{config.minutes} minutes or {config.epochs} epochs is less than a step; "
            f"measured seconds a step: {clock.measured}"
        )
    return Plan(
        steps, work.steps_per_epoch, way.precision, clock.measured, way.products
    )


class _Clock:
    """Seconds of a training step, on copies of the network that are thrown away."""

    def __init__(self, network: nn.Module, prepare: Prepare, *, phases: int) -> None:
        self.device = next(network.parameters()).device
        self.measured: dict[str, float] = {}
        self._network, self._prepare, self._phases = network, prepare, phases

    def cheapest(self, choice: Sequence[Way], begin: float) -> Way:
        """Of those that are timed by turns, so far into the training."""
        self._measure(choice, begin)
        return min(choice, key=lambda way: self.cost(way, begin))

    def cost(self, way: Way, begin: float) -> float:
        """Measured, unless it is known."""
        if self._name(way, begin) not in self.measured:
            self._measure([way], begin)
        return self.measured[self._name(way, begin)]

    def _measure(self, choice: Sequence[Way], begin: float) -> None:
        steps = {}
        for way in choice:
            copied = copy.deepcopy(self._network)
            use_products(copied, way.products)
            name = self._name(way, begin)
            steps[name] = self._prepare(copied, way.precision, begin)
        self.measured |= time_steps(steps, self.device)

    def _name(self, way: Way, begin: float) -> str:
        return str(way) if self._phases == 1 else f"{way} from {begin:g}"


def ways(precision: str, network: nn.Module, device: torch.device) -> tuple[Way, ...]:
    """What is to be chosen from by its cost: for `auto` all that can pay there."""
    if precision != "auto":
        return (Way(cast(Precision, precision)),)
    found = (Way("fp32"), Way("bf16"))
    deep = device.type == "cpu" and has_deep(network)
    return (*found, Way("bf16", products=True)) if deep else found


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
    return time_steps({precision: step}, device)[precision]


def time_steps(
    steps: Mapping[str, Callable[[], None]], device: torch.device
) -> dict[str, float]:
    """Median seconds of each, taken by turns: a machine is not always equally fast."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM_STEPS + TIMED_STEPS):
        for name, step in steps.items():
            started_s = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - started_s)
    return {
        name: sorted(each[WARM_STEPS:])[TIMED_STEPS // 2]
        for name, each in seconds.items()
    }
