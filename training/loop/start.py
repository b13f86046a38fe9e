"""config + network → **state**: a fresh one with its plan, or that of a checkpoint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from training.configs.config import Config
from training.data.batches import Batches
from training.loop.arithmetic import Precision
from training.loop.budget import Plan, Prepare, Work, make_plan
from training.loop.distributed import Ranks
from training.loop.state import State, saved_plan, saved_run
from training.loop.step import Moment, Steps
from training.optimizers.ema import Lookahead, MovingAverage
from training.optimizers.optimizers import Optimizers

CHECKPOINT = "last.pt"
LOOKAHEAD_DECAY = 0.95  # a step; Jordan, arXiv:2404.00498


def begin(  # noqa: PLR0913 - what `fit` was given
    network: nn.Module,
    config: Config,
    *,
    steps: Steps,
    train: Batches,
    work: Work,
    folder: Path,
    ranks: Ranks,
) -> State:
    """The state to start from; `network` gets the checkpoint's weights if there is one.

    Raises:
        CheckpointError: the folder holds the checkpoint of another run.
    """
    path = folder / CHECKPOINT
    saved = saved_run(path, config, device=str(ranks.device))
    if saved is None:
        prepare = timed_step(config, steps, train, ranks)
        plan = make_plan(network, prepare, config.train, config.augment.sizes, work)
        plan = _agreed(plan, ranks)
    else:
        plan = saved_plan(saved)
    optimizers = build_optimizers(network, config, ranks)
    state = State(config, network, optimizers, plan)
    if config.train.ema:
        state.ema = MovingAverage(network, decay=config.train.ema)
    if config.train.lookahead:
        state.lookahead = Lookahead(
            network, every=config.train.lookahead, decay=LOOKAHEAD_DECAY
        )
    if saved is not None:
        state.restore(saved, path)
    return state


def build_optimizers(network: nn.Module, config: Config, ranks: Ranks) -> Optimizers:
    """The optimizers of a config for a network."""
    return Optimizers(
        network, config.optimizer, config.schedule, freezes=ranks.world == 1
    )


def timed_step(config: Config, steps: Steps, train: Batches, ranks: Ranks) -> Prepare:
    """Whole training steps on a network that is thrown away, to be timed."""

    def prepare(
        copied: nn.Module, precision: Precision, side: int | None
    ) -> Callable[[], None]:
        optimizers = build_optimizers(copied, config, ranks)
        batch = next(iter(train.epoch(0)))
        moment = Moment(step=0, epoch=0, progress=0.0, side=side)

        def take() -> None:
            steps.take(copied, optimizers, batch, moment, precision=precision)

        return take

    return prepare


def _agreed(plan: Plan, ranks: Ranks) -> Plan:
    """The first rank's plan: the others have measured other times."""
    low = ranks.agree(float(plan.precision == "bf16")) > 0
    return replace(
        plan, steps=int(ranks.agree(plan.steps)), precision="bf16" if low else "fp32"
    )
