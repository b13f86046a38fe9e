"""a few timed steps → **plan**: the arithmetic that pays here, and how many epochs.

The plan goes into the checkpoint: a run that goes on keeps it. What a few steps cannot
know, `pace` corrects while the training runs.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from training.configs.train_sections import TrainConfig
from training.errors import ConfigError
from training.loop.arithmetic import Precision
from training.loop.timing import Clock, Prepare, StepMode, step_modes

# Part of the budget that is planned: not all steps are equally fast, and what is left
# suffices for the test split afterwards.
SAFETY = 0.92
FORWARD_SHARE = 1 / 3  # of a training step, whose backward pass costs twice as much


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
    def mode(self) -> StepMode:
        """What a step is computed with."""
        return StepMode(self.precision, self.products)

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

    def told(self) -> str:
        """The plan for a person, with what it was made from."""
        text = (
            f"{self.epochs:.2f} epochs of {self.steps_per_epoch} steps in {self.mode}"
        )
        if not self.measured:
            return text
        times = ", ".join(f"{name} {s:.3g}" for name, s in self.measured.items())
        return f"{text} (measured, in seconds a step: {times})"

    def state(self) -> dict[str, object]:
        """Plain values, for the checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """What a plan must provide for, besides the steps."""

    steps_per_epoch: int
    batch_size: int  # of a rank
    validation_images: int
    validate_every: int = 1  # epochs
    validation_streams: bool = False  # decoded again for each look
    load_s: float = 0.0  # of a batch; see `time_loading`
    kept: float = 1.0  # of what is loaded: `batch_size` images, where a proxy selects


def make_plan(
    network: nn.Module,
    prepare: Prepare,
    config: TrainConfig,
    ends: tuple[float, ...],
    work: Work,
    *,
    begun_s: float | None = None,
) -> Plan:
    """Time what the config leaves open, and plan.

    `ends` are the parts of the training after which a step costs another time, because
    images grow or layers freeze; the last is 1. The minutes run since `begun_s`, an
    instant of `time.perf_counter`, or from now on.

    Raises:
        ConfigError: the epochs or the minutes do not suffice for one step.
    """
    begun_s = time.perf_counter() if begun_s is None else begun_s
    begins = (0.0, *ends[:-1])
    clock = Clock(network, prepare, config, phases=len(ends))
    mode, *others = step_modes(config.precision, network, clock.device)
    if others:
        mode = clock.cheapest((mode, *others), begins[-1])
    costs: tuple[tuple[float, float], ...] = ()
    look_s = 0.0
    if config.minutes is None:
        steps = steps_of(config.epochs or 0, work.steps_per_epoch)
    else:
        timed = [clock.cost(mode, begin) for begin in begins]
        look_s = validation_seconds(max(timed), work)
        loaded = (with_loading(step_s, work.load_s, clock.device) for step_s in timed)
        costs = tuple(zip(ends, loaded, strict=True))
        spent_s = time.perf_counter() - begun_s
        left_s = usable_s(config.minutes) - spent_s
        steps = steps_within(left_s, costs, look_s, work)
        if steps < 1:
            step_s = seconds_a_step(costs, look_s, work)
            raise too_few_minutes(config.minutes, spent_s, step_s, look_s)
    return Plan(
        steps,
        work.steps_per_epoch,
        mode.precision,
        clock.measured,
        mode.products,
        costs,
        look_s,
    )


def steps_of(epochs: float, steps_per_epoch: int) -> int:
    """Steps of so many epochs; a `ConfigError` where these do not suffice for one."""
    steps = round(epochs * steps_per_epoch)
    if steps < 1:
        raise ConfigError(
            f"{epochs:g} epochs is less than a step; an epoch has {steps_per_epoch} of "
            f"them, so give at least {upwards(1 / steps_per_epoch)}"
        )
    return steps


def too_few_minutes(
    minutes: float, spent_s: float, step_s: float, look_s: float
) -> ConfigError:
    """Why not a step fits into a budget, and what would do."""
    least_s = (spent_s + step_s + look_s) / SAFETY
    return ConfigError(
        f"{minutes:g} minutes is less than a step; measured were {spent_s:.3g} s of "
        f"planning, {step_s:.3g} s a step with its images and its part of the looks at "
        f"validation, and {look_s:.3g} s for the last of these, so give at least "
        f"{upwards(least_s / 60)}"
    )


def usable_s(minutes: float) -> float:
    """Seconds of a budget that are planned."""
    return minutes * 60 * SAFETY


def with_loading(step_s: float, load_s: float, device: torch.device) -> float:
    """Seconds of a step while the batches to come are decoded.

    A GPU computes meanwhile, so the slower of the two counts; on a CPU both want the
    same cores.
    """
    return max(step_s, load_s) if device.type == "cuda" else step_s + load_s


def validation_seconds(step_s: float, work: Work) -> float:
    """Seconds of a look at validation: whole images forward, decoded if need be."""
    a_batch = step_s * FORWARD_SHARE
    if work.validation_streams:
        a_batch += work.load_s * work.kept
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
    return int((seconds - look_s) / seconds_a_step(costs, look_s, work, begin=begin))


def seconds_a_step(
    costs: Iterable[tuple[float, float]],
    look_s: float,
    work: Work,
    *,
    begin: float = 0.0,
) -> float:
    """The mean of those from the progress `begin` on, with their part of the looks."""
    whole, from_, total = 1 - begin, begin, 0.0
    for end, cost in costs:
        total += max(end - from_, 0) * cost
        from_ = max(end, from_)
    look_every = work.steps_per_epoch * work.validate_every
    return total / whole + look_s / look_every


def upwards(value: float) -> str:
    """Two digits that are no less than `value`: what is advised must do."""
    digits = 1 - math.floor(math.log10(value))
    return f"{math.ceil(value * 10**digits) / 10**digits:g}"
