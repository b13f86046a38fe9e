"""config + network → **state**: a fresh one with its plan, or that of a checkpoint."""

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from training.configs.config import Config
from training.data.batches import Batch, Batches
from training.errors import CheckpointError, ConfigError
from training.loop.arithmetic import Precision, compiled, place
from training.loop.budget import (
    Plan,
    Work,
    make_plan,
)
from training.loop.convolutions import use_products
from training.loop.distributed import Ranks
from training.loop.origin import Origin
from training.loop.selection import Selection
from training.loop.state import State, saved_plan, saved_run
from training.loop.step import Learner, Steps
from training.loop.timing import Prepare, time_loading
from training.loop.validation import Validation
from training.objectives.objective import Objective
from training.optimizers.ema import Lookahead, MovingAverage
from training.optimizers.optimizers import Optimizers

LOGGER = logging.getLogger(__name__)

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
    proxy: nn.Module | None = None,
) -> State:
    """The state to start from; `network` gets the checkpoint's weights if there is one.

    Raises:
        CheckpointError: the folder holds the checkpoint of another run or other data,
            or one of other steps, or not the same one for all ranks.
    """
    path, begun_s = folder / CHECKPOINT, time.perf_counter()
    saved = saved_run(path, config, origin, device=str(ranks.device))
    check_shared(saved, path, ranks)
    if saved is None:
        prepare = timed_step(config, steps, train, ranks, proxy)
        LOGGER.info("timing a few steps and batches, to plan from")
        if (minutes := config.train.minutes) is not None:
            work = replace(work, load_s=time_loading(train, minutes))
        plan = make_plan(
            network, prepare, config.train, phases(config), work, begun_s=begun_s
        )
        plan = agreed(plan, ranks)
    else:
        plan = saved_plan(saved)
        if plan.steps_per_epoch != work.steps_per_epoch:
            raise CheckpointError(
                f"{path} was begun with {plan.steps_per_epoch} steps an epoch; here "
                f"they would be {work.steps_per_epoch}: start as many processes as then"
            )
    use_products(network, plan.products)
    optimizers = build_optimizers(network, config, ranks)
    state = State(config, network, optimizers, plan, origin)
    if config.train.ema:
        state.ema = MovingAverage(network, decay=config.train.ema)
    if config.train.lookahead:
        state.lookahead = Lookahead(
            network, every=config.train.lookahead, decay=LOOKAHEAD_DECAY
        )
    state.selection = open_selection(
        proxy, config, steps.objective, ranks, averages=True
    )
    if saved is not None:
        state.restore(saved, path)
    else:
        state.seconds = time.perf_counter() - begun_s  # planning is paid for, too
    return state


def check_shared(saved: dict[str, Any] | None, path: Path, ranks: Ranks) -> None:
    """Refuse to go on from checkpoints of which each rank has found another.

    Only the first writes them. Those on a machine that does not see its disk would
    begin anew, and wait in their planning for one that is training.

    Raises:
        CheckpointError: on every rank, with what this one has found.
    """
    step = None if saved is None else saved["step"]
    if not ranks.same(-1 if step is None else step):
        found = "finds none" if step is None else f"finds that of step {step}"
        raise CheckpointError(
            f"the processes find different checkpoints at {path}: rank {ranks.rank} of "
            f"{ranks.world} {found}; the run folder must be on a disk that all of them "
            "share"
        )


def build_optimizers(network: nn.Module, config: Config, ranks: Ranks) -> Optimizers:
    """The optimizers of a config for a network."""
    return Optimizers(
        network, config.optimizer, config.schedule, freezes=ranks.world == 1
    )


def open_selection(
    proxy: nn.Module | None,
    config: Config,
    objective: Objective,
    ranks: Ranks,
    *,
    averages: bool = False,
) -> Selection | None:
    """What chooses the images of a step by a fresh proxy, where the config wants it.

    `averages` True: its gradients over all ranks, as a run does with the network's.
    False is for what is thrown away: there each rank takes as many steps as its own
    clock or loss says, and would wait for the others forever.

    Raises:
        ConfigError: it does, and this training has no proxy, or one that the optimizers
            of the config do not fit.
    """
    if config.selection is None:
        return None
    if proxy is None:
        raise ConfigError("this training has no proxy: leave [selection] out")
    place(proxy, ranks.device)
    proxy.train()
    try:
        optimizers = build_optimizers(proxy, config, ranks)
    except ConfigError as error:
        raise ConfigError(
            f"the proxy {config.selection.proxy} has the optimizers of the large "
            f"network, and they do not fit it: {error}"
        ) from error
    faster = compiled(proxy, wanted=config.train.compile, device=ranks.device)
    return Selection(
        proxy,
        ranks.wrap(faster) if averages else faster,
        optimizers,
        objective,
        keep=config.selection.keep,
        clip_norm=config.train.clip_norm,
    )


def phases(config: Config) -> tuple[float, ...]:
    """Parts of the training after which a step costs another time; the last is 1.

    Where images grow, and where an optimizer's parameters freeze: nothing is computed
    for them any more.
    """
    grown = {end for end, _ in config.augment.sizes}
    frozen = {o.until for o in config.optimizer if o.until is not None and o.until < 1}
    return tuple(sorted(grown | frozen | {1.0}))


def work_of(
    config: Config, train: Batches, validation: Validation | None, *, world: int
) -> Work:
    """What a time budget must provide for."""
    return Work(
        train.steps(),
        config.train.batch_size // world,  # what a rank is timed on
        len(validation) if validation is not None else 0,
        config.train.validate_every,
        validation_streams=validation is not None and not validation.resident,
        kept=config.kept,
    )


def timed_step(
    config: Config,
    steps: Steps,
    train: Batches,
    ranks: Ranks,
    proxy: nn.Module | None = None,
) -> Prepare:
    """Whole training steps on a network that is thrown away, to be timed.

    All on one batch: what loading takes is timed by itself. And of this rank alone,
    for the others may take more of them, or fewer.
    """

    @cache
    def first_batch() -> Batch:
        return next(iter(train.epoch(0)))

    def prepare(
        copied: nn.Module, precision: Precision, progress: float
    ) -> Callable[[], None]:
        optimizers = build_optimizers(copied, config, ranks)
        batch, moment = first_batch(), steps.at(progress)
        trained = compiled(copied, wanted=config.train.compile, device=ranks.device)
        again = copy.deepcopy(proxy)
        selection = open_selection(again, config, steps.objective, ranks)
        learner = Learner(trained, optimizers, selection)

        def take() -> None:
            steps.take(learner, batch, moment, precision=precision)

        return take

    return prepare


def agreed(plan: Plan, ranks: Ranks) -> Plan:
    """The first rank's plan: the others have measured other times."""
    low = ranks.agree(float(plan.precision == "bf16")) > 0
    return replace(
        plan,
        steps=int(ranks.agree(plan.steps)),
        precision="bf16" if low else "fp32",
        products=ranks.agree(float(plan.products)) > 0,
    )
