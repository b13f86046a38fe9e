"""config + data → **learning rate**: where the loss falls fastest.

The rates of all optimizers are multiplied by a factor that grows from step to step
until the loss blows up (Smith, arXiv:1506.01186). The suggestion is the factor at the
steepest fall of the smoothed loss.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from training.configs.config import Config
from training.data.batches import Batches
from training.errors import DivergedError
from training.files import whole
from training.loop.arithmetic import keep_memory, place
from training.loop.distributed import Ranks
from training.loop.start import build_optimizers, open_selection
from training.loop.step import Learner, Moment, Steps
from training.networks import Network
from training.objectives.objective import Objective

LOWEST, HIGHEST = 1e-3, 1e2  # factors tried
STEPS = 60
SMOOTHING = 0.8  # of the loss, a step
BLOWN_UP = 3.0  # times the lowest loss so far: stop


@dataclass(frozen=True)
class RateCurve:
    """The smoothed loss at each factor, and the factor to use."""

    factors: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def suggested(self) -> float:
        """The factor at the steepest fall of the loss, a point before its minimum."""
        if len(self.losses) < 3:  # noqa: PLR2004 - no slope yet
            return self.factors[0]
        lowest = min(range(len(self.losses)), key=self.losses.__getitem__)
        slopes = [self.losses[n + 1] - self.losses[n] for n in range(max(lowest, 2))]
        return self.factors[min(range(len(slopes)), key=slopes.__getitem__)]


def find_rate(
    network: Network,
    config: Config,
    batches: Batches,
    objective: Objective,
    ranks: Ranks,
    proxy: Network | None = None,
) -> RateCurve:
    """Train a network that is thrown away, with growing rates; `proxy` as in `fit`.

    Raises:
        DivergedError: the first loss is not finite, which no rate would change.
    """
    keep_memory()
    place(network, ranks.device)
    network.train()
    steps = Steps(config, objective, samples=batches.samples)
    optimizers = build_optimizers(network, config, ranks)
    selection = open_selection(proxy, config, objective, ranks)
    learner = Learner(network, optimizers, selection)
    factors: list[float] = []
    losses: list[float] = []
    smooth = 0.0
    step = 0
    while step < STEPS:
        for batch in batches.epoch(step // batches.steps()):
            factor = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
            # At its peak, so that the schedule does not hide the factor.
            moment = Moment(step, 0, config.schedule.warmup, None)
            loss = steps.take(
                learner, batch, moment, precision="fp32", multiple=factor
            ).item()
            smooth = SMOOTHING * smooth + (1 - SMOOTHING) * loss
            value = smooth / (1 - SMOOTHING ** (step + 1))
            step += 1
            # A proxy that is lost selects by place, and the losses mean nothing.
            proxy_loss = selection.total_loss.item() if selection is not None else 0.0
            finite = math.isfinite(value) and math.isfinite(proxy_loss)
            if not finite and not losses:
                which = "proxy" if math.isfinite(value) else "network"
                raise DivergedError(
                    f"the first loss of the {which} is no number, before any rate has "
                    "moved a weight: look at data.mean and data.std"
                )
            if not finite or value > BLOWN_UP * min(losses, default=value):
                return RateCurve(tuple(factors), tuple(losses))
            factors.append(factor)
            losses.append(value)
            if step == STEPS:
                break
    return RateCurve(tuple(factors), tuple(losses))


def draw_rates(curve: RateCurve, picture: Path) -> None:
    """Loss over factor, with the suggestion marked."""
    import matplotlib  # noqa: PLC0415 - slow to load, and only needed here

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.plot(curve.factors, curve.losses)
    axes.axvline(curve.suggested, linestyle="--", label=f"{curve.suggested:.3g}")
    axes.set(xscale="log", xlabel="factor on the learning rates", ylabel="loss")
    axes.legend()
    figure.tight_layout()
    with whole(picture) as partial:
        figure.savefig(partial, dpi=120, format="png")
    pyplot.close(figure)
