"""a few timed steps → **plan**: the arithmetic that pays here, and how many epochs.

Measured on a throwaway copy of the network, so that nothing of it remains. The plan
goes into the checkpoint: a run that goes on keeps it. What a few steps cannot know,
`pace` corrects while the training runs.
"""

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, cast

import torch
from torch import nn

from training.configs.train_sections import TrainConfig
from training.data.batches import Batches
from training.errors import ConfigError
from training.loop.arithmetic import Precision
from training.loop.convolutions import has_deep, use_products

WARM_STEPS, TIMED_STEPS = 2, 5
# Timing goes on for so long, or for such a part of the minutes if that is less: five
# short steps can all fall into a moment in which the machine does something else.
SAMPLE_S, SAMPLE_SHARE, MOST_STEPS = 1.0, 0.02, 100
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
    # Of a time budget: rows of (until which part of the training, seconds a step with
    # its loading), and the seconds of a look at validation.
    costs: tuple[tuple[float, float], ...] = ()
    look_s: float = 0.0
    # Where the length was last corrected: from this step and this part of the training
    # on, the rest is spread evenly over the steps that are left.
    from_step: int = 0
    from_progress: float = 0.0

    @property
    def way(self) -> Way:
        """What a step is computed with."""
        return Way(self.precision, self.products)

    @property
    def epochs(self) -> float:
        """The length in epochs; the last one may be a part."""
        return self.steps / self.steps_per_epoch

    def progress(self, step: int) -> float:
        """Part of the training that is done after so many steps, 0 to 1."""
        part = (step - self.from_step) / (self.steps - self.from_step)
        return self.from_progress + (1 - self.from_progress) * part

    def cost(self, progress: float) -> float:
        """Planned seconds of a step there."""
        return next((s for end, s in self.costs if progress < end), self.costs[-1][1])

    def state(self) -> dict[str, object]:
        """Plain values, for the checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """What a plan must provide for, besides the steps."""

    steps_per_epoch: int
    batch_size: int
    validation_images: int
    validate_every: int = 1  # epochs
    validation_streams: bool = False  # decoded again for each look
    load_s: float = 0.0  # of a batch; see `time_loading`


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
    clock = _Clock(network, prepare, config, phases=len(ends))
    way, *others = ways(config.precision, network, clock.device)
    if others:
        way = clock.cheapest((way, *others), begins[-1])
    costs: tuple[tuple[float, float], ...] = ()
    look_s = 0.0
    if config.minutes is None:
        steps = round((config.epochs or 0) * work.steps_per_epoch)
    else:
        timed = [clock.cost(way, begin) for begin in begins]
        look_s = look_seconds(max(timed), work)
        loaded = (with_loading(step_s, work.load_s, clock.device) for step_s in timed)
        costs = tuple(zip(ends, loaded, strict=True))
        steps = steps_within(usable_s(config.minutes), costs, look_s, work)
    if steps < 1:
        raise ConfigError(
            f"{config.minutes} minutes or {config.epochs} epochs is less than a step; "
            f"measured seconds a step: {clock.measured}, of loading its images: "
            f"{work.load_s:.3g}, of a look at validation: {look_s:.3g}"
        )
    return Plan(
        steps,
        work.steps_per_epoch,
        way.precision,
        clock.measured,
        way.products,
        costs,
        look_s,
    )


class _Clock:
    """Seconds of a training step, on copies of the network that are thrown away."""

    def __init__(
        self, network: nn.Module, prepare: Prepare, config: TrainConfig, *, phases: int
    ) -> None:
        self.device = next(network.parameters()).device
        self.measured: dict[str, float] = {}
        self._network, self._prepare, self._phases = network, prepare, phases
        self._sample_s = sample_s(config.minutes)

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
        self.measured |= time_steps(steps, self.device, self._sample_s)

    def _name(self, way: Way, begin: float) -> str:
        return str(way) if self._phases == 1 else f"{way} from {begin:g}"


def ways(precision: str, network: nn.Module, device: torch.device) -> tuple[Way, ...]:
    """What is to be chosen from by its cost: for `auto` all that can pay there."""
    if precision != "auto":
        return (Way(cast(Precision, precision)),)
    found = (Way("fp32"), Way("bf16"))
    deep = device.type == "cpu" and has_deep(network)
    return (*found, Way("bf16", products=True)) if deep else found


def usable_s(minutes: float) -> float:
    """Seconds of a budget that are planned."""
    return minutes * 60 * SAFETY


def sample_s(minutes: float | None) -> float:
    """Seconds for which each thing is timed."""
    return SAMPLE_S if minutes is None else min(SAMPLE_S, minutes * 60 * SAMPLE_SHARE)


def with_loading(step_s: float, load_s: float, device: torch.device) -> float:
    """Seconds of a step while the batches to come are decoded.

    A GPU computes meanwhile, so the slower of the two counts; on a CPU both want the
    same cores.
    """
    return max(step_s, load_s) if device.type == "cuda" else step_s + load_s


def look_seconds(step_s: float, work: Work) -> float:
    """Seconds of a look at validation: whole images forward, decoded if need be."""
    a_batch = step_s * FORWARD_SHARE
    if work.validation_streams:
        a_batch += work.load_s
    return a_batch / work.batch_size * work.validation_images


def steps_within(
    seconds: float,
    costs: Iterable[tuple[float, float]],
    look_s: float,
    work: Work,
    *,
    begin: float = 0.0,
) -> int:
    """Steps that fit between the progress `begin` and the end, with their validations.

    The weights that are kept are looked at once more at the end. `costs` are rows of
    (until which part of the training, seconds a step).
    """
    whole, from_, total = 1 - begin, begin, 0.0
    for end, cost in costs:
        total += max(end - from_, 0) * cost
        from_ = max(end, from_)
    look_every = work.steps_per_epoch * work.validate_every
    a_step = total / whole + look_s / look_every
    return int((seconds - look_s) / a_step)


def time_step(
    network: nn.Module,
    prepare: Prepare,
    precision: Precision,
    progress: float,
    device: torch.device,
) -> float:
    """Seconds of one training step on a copy of the network."""
    step = prepare(copy.deepcopy(network), precision, progress)
    return time_steps({precision: step}, device)[precision]


def time_steps(
    steps: Mapping[str, Callable[[], None]],
    device: torch.device,
    sample_s: float = SAMPLE_S,
) -> dict[str, float]:
    """Seconds of each when nothing disturbs it: the least of many.

    Taken by turns, for about `sample_s` seconds each: what else the machine does can
    only make a step look dearer, and does so for a while.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    enough_s = time.perf_counter() + sample_s * len(steps)
    for done in range(WARM_STEPS + MOST_STEPS):
        if done >= WARM_STEPS + TIMED_STEPS and time.perf_counter() >= enough_s:
            break
        for name, step in steps.items():
            started_s = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - started_s)
    return {name: min(each[WARM_STEPS:]) for name, each in seconds.items()}


def time_loading(train: Batches, *, sample_s: float) -> float:
    """Seconds a batch takes to be loaded, over the first ones of an epoch."""
    begun_s, loaded = time.perf_counter(), 0
    for _ in train.epoch(0):
        loaded += 1
        spent_s = time.perf_counter() - begun_s
        if loaded >= TIMED_STEPS and spent_s >= sample_s:
            break
    return spent_s / loaded
