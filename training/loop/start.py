"""config + network → **state**: a fresh one with its plan, or that of a checkpoint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from training.configs.config import Config
from training.data.batches import Batches
from training.loop.arithmetic import Precision, compiled
from training.loop.budget import Plan, Prepare, Work, make_plan
from training.loop.convolutions import use_products
from training.loop.distributed import Ranks
from training.loop.origin import Origin
from training.loop.state import State, saved_plan, saved_run
from training.loop.step import Steps
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
    origin: Origin | None,
) -> State:
    """The state to start from; `network` gets the checkpoint's weights if there is one.

    Raises:
        CheckpointError: the folder holds the checkpoint of another run or other data.
    """
    path = folder / CHECKPOINT
    saved = saved_run(path, config, origin, device=str(ranks.device))
    if saved is None:
        prepare = timed_step(config, steps, train, ranks)
        plan = make_plan(network, prepare, config.train, phases(config), work)
        plan = _agreed(plan, ranks)
    else:
        plan = saved_plan(saved)
    use_products(network, plan.products)
    optimizers = build_optimizers(network, config, ranks)
    state = State(config, network, optimizers, plan, origin)
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


def phases(config: Config) -> tuple[float, ...]:
    """Parts of the training after which a step costs another time; the last is 1.

    Where images grow, and where an optimizer's parameters freeze: nothing is computed
    for them any more.
    """
    grown = {end for end, _ in config.augment.sizes}
    frozen = {o.until for o in config.optimizer if o.until is not None and o.until < 1}
    return tuple(sorted(grown | frozen | {1.0}))


def timed_step(config: Config, steps: Steps, train: Batches, ranks: Ranks) -> Prepare:
    """Whole training steps on a network that is thrown away, to be timed."""

    def prepare(
        copied: nn.Module, precision: Precision, progress: float
    ) -> Callable[[], None]:
        optimizers = build_optimizers(copied, config, ranks)
        batch = next(iter(train.epoch(0)))
        moment = steps.at(progress)
        trained = compiled(copied, wanted=config.train.compile, device=ranks.device)

        def take() -> None:
            steps.take(trained, optimizers, batch, moment, precision=precision)

        return take

    return prepare


def _agreed(plan: Plan, ranks: Ranks) -> Plan:
    """The first rank's plan: the others have measured other times."""
    low = ranks.agree(float(plan.precision == "bf16")) > 0
    return replace(
        plan,
        steps=int(ranks.agree(plan.steps)),
        precision="bf16" if low else "fp32",
        products=ranks.agree(float(plan.products)) > 0,
    )
