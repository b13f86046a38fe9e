"""network → **seconds** of a training step in each arithmetic, and of loading a batch.

Measured on copies of the network that are thrown away, so that nothing of it remains.
"""

import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from operator import truediv
from typing import NamedTuple, cast

import torch
from torch import nn

from training.configs.train_sections import TrainConfig
from training.data.batches import Batches
from training.errors import DeviceFullError
from training.loop.arithmetic import Precision
from training.loop.convolutions import has_choice, use_products

WARM_STEPS, TIMED_STEPS = 2, 5
# Timing goes on for so long, or for such a part of the minutes if that is less: five
# short steps can all fall into a moment in which the machine does something else.
SAMPLE_S, SAMPLE_SHARE, MOST_STEPS = 1.0, 0.02, 100
# The timing of steps takes this long at most, or this part of the minutes, and so does
# that of loading; but one step after a first one in each way is always timed, without
# which nothing would be known.
LIMIT_S, LIMIT_SHARE, LEAST_STEPS = 30.0, 0.1, 2
# Once warm, what takes so many times as long as the best is not timed further: the time
# is wanted to tell apart what is close.
FAR = 1.5

# A network, an arithmetic, how far the training has come → a training step.
Prepare = Callable[[nn.Module, Precision, float], Callable[[], None]]


class StepMode(NamedTuple):
    """An arithmetic, and whether convolutions are products of matrices."""

    precision: Precision
    products: bool = False  # see `convolutions.py`

    def __str__(self) -> str:
        return f"{self.precision} with products" if self.products else self.precision


def step_modes(
    precision: str, network: nn.Module, device: torch.device
) -> tuple[StepMode, ...]:
    """What is to be chosen from by its cost: for `auto` all that can pay there."""
    if precision != "auto":
        return (StepMode(cast(Precision, precision)),)
    found = (StepMode("fp32"), StepMode("bf16"))
    if device.type != "cpu" or not has_choice(network):
        return found
    return (*found, *(mode._replace(products=True) for mode in found))


class Clock:
    """Seconds of a training step, on copies of the network that are thrown away."""

    def __init__(
        self, network: nn.Module, prepare: Prepare, config: TrainConfig, *, phases: int
    ) -> None:
        self.device = next(network.parameters()).device
        self.measured: dict[str, float] = {}
        self._network, self._prepare, self._phases = network, prepare, phases
        self._sample_s = sample_s(config.minutes)
        self._until_s = time.perf_counter() + limit_s(config.minutes)

    def cheapest(self, choice: Sequence[StepMode], begin: float) -> StepMode:
        """Of those that fit and are timed by turns, so far into the training."""
        self._measure(choice, begin)
        fit = [mode for mode in choice if self._name(mode, begin) in self.measured]
        return min(fit, key=lambda mode: self.cost(mode, begin))

    def cost(self, mode: StepMode, begin: float) -> float:
        """Measured, unless it is known."""
        if self._name(mode, begin) not in self.measured:
            self._measure([mode], begin)
        return self.measured[self._name(mode, begin)]

    def _measure(self, choice: Sequence[StepMode], begin: float) -> None:
        steps = {}
        for mode in choice:
            copied = copy.deepcopy(self._network)
            use_products(copied, mode.products)
            name = self._name(mode, begin)
            steps[name] = self._prepare(copied, mode.precision, begin)
        self.measured |= time_steps(
            steps, self.device, self._sample_s, until_s=self._until_s
        )

    def _name(self, mode: StepMode, begin: float) -> str:
        return str(mode) if self._phases == 1 else f"{mode} from {begin:g}"


def sample_s(minutes: float | None) -> float:
    """Seconds for which each thing is timed."""
    return SAMPLE_S if minutes is None else min(SAMPLE_S, minutes * 60 * SAMPLE_SHARE)


def limit_s(minutes: float | None) -> float:
    """Seconds for which all steps together are timed, and again all loading."""
    return LIMIT_S if minutes is None else min(LIMIT_S, minutes * 60 * LIMIT_SHARE)


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
    *,
    until_s: float = math.inf,
) -> dict[str, float]:
    """Seconds of each when nothing disturbs it.

    Taken by turns, for about `sample_s` seconds each: what else the machine does can
    only make a step look dearer, and does so for a while. So of the best the least of
    many counts, and of the others how they compare with it in the same turns. What is
    far from the best drops out. From the instant `until_s` on the fewest steps must do.
    What the device has no room for is left out of the answer.

    Raises:
        DeviceFullError: there is no room for any of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    close = dict(steps)
    enough_s = time.perf_counter() + sample_s * len(steps)
    for done in range(WARM_STEPS + MOST_STEPS):
        now_s = time.perf_counter()
        if done >= WARM_STEPS + TIMED_STEPS and now_s >= enough_s:
            break
        if done >= LEAST_STEPS and now_s >= until_s:
            break
        if done == WARM_STEPS:
            best_s = min(min(each) for each in seconds.values())
            close = {n: s for n, s in close.items() if min(seconds[n]) <= FAR * best_s}
        for name, step in list(close.items()):
            started_s = time.perf_counter()
            try:
                step()
            except DeviceFullError:
                del close[name], seconds[name]
                if not close:
                    raise
                continue
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - started_s)
    warm = {n: t[min(WARM_STEPS, len(t) - 1) :] for n, t in seconds.items()}
    best = min(close, key=lambda name: min(warm[name]))
    least_s = min(warm[best])
    return {
        name: least_s * statistics.median(map(truediv, warm[name], warm[best]))
        if name in close
        else min(times)
        for name, times in seconds.items()
    }


def time_loading(train: Batches, minutes: float) -> float:
    """Seconds a batch takes to be loaded, over the first ones of an epoch."""
    begun_s, loaded = time.perf_counter(), 0
    enough_s, most_s = sample_s(minutes), limit_s(minutes)
    for _ in train.epoch(0):
        loaded += 1
        spent_s = time.perf_counter() - begun_s
        if spent_s >= (enough_s if loaded >= TIMED_STEPS else most_s):
            break
    return spent_s / loaded
