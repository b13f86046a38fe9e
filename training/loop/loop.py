"""network + batches → **trained network**: the whole training, readable on one screen.

    outcome = fit(network, config, train=…, validation=…, objective=…, room=…)

Kill it at any moment and call it again with the same folder: it goes on from the last
checkpoint and, on a CPU, ends with the same weights to the bit (on a GPU: nearly).
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from torch import nn

from training.configs.config import Config
from training.data.batches import Batch, Batches
from training.loop.arithmetic import compiled, place
from training.loop.budget import Plan, usable_s
from training.loop.convolutions import use_products
from training.loop.distributed import Ranks
from training.loop.log import Log
from training.loop.origin import Origin
from training.loop.pace import Pace
from training.loop.start import CHECKPOINT, agreed, begin, work_of
from training.loop.state import State
from training.loop.step import Learner, Steps
from training.loop.validation import Validation
from training.objectives.objective import Objective, Scores

SHOW_EVERY, SHOW_S = 10, 0.5  # steps, or seconds: to look at the loss makes a GPU wait


@dataclass(frozen=True)
class Room:
    """Where a run lives: its folder, its processes, its terminal."""

    folder: Path
    ranks: Ranks
    live: TextIO | None = None


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves; the network holds the weights to keep."""

    plan: Plan
    steps: int
    taken: int  # of them, by this start
    # with planning and validation, over all starts; of a probe, its last
    seconds: float
    scores: Scores  # of the kept weights on validation; empty without one

    @property
    def epochs(self) -> float:
        """How many are done: with patience perhaps fewer than planned."""
        return self.steps / self.plan.steps_per_epoch


def fit(  # noqa: PLR0913 - the parts of a training, each a noun of its own
    network: nn.Module,
    config: Config,
    *,
    train: Batches,
    validation: Validation | None,
    objective: Objective,
    room: Room,
    origin: Origin | None = None,
    proxy: nn.Module | None = None,
) -> Outcome:
    """Train `network` in place as `config` says.

    Args:
        origin: of the data, kept in checkpoints; None where it cannot change.
        proxy: a fresh network that selects the images, where the config wants that.

    Raises:
        DivergedError: a weight, or a loss of the network, of its proxy or on
            validation, is not finite; what was written before is untouched.
        CheckpointError: the folder holds the checkpoint of another run, other data or
            other steps, is full, or is not the same one for all ranks.
    """
    ranks = room.ranks
    place(network, ranks.device)
    network.train()
    steps = Steps(config, objective, samples=train.samples, rank=ranks.rank)
    work = work_of(config, train, validation, world=ranks.world)
    state = begin(
        network,
        config,
        steps=steps,
        train=train,
        work=work,
        folder=room.folder,
        ranks=ranks,
        origin=origin,
        proxy=proxy,
    )
    return _Run(state, steps, train, validation, room, Pace(work)).to_the_end()


class _Run:
    """One training, from its state to its end."""

    def __init__(
        self,
        state: State,
        steps: Steps,
        train: Batches,
        validation: Validation | None,
        room: Room,
        pace: Pace,
    ) -> None:
        self._state, self._steps, self._room = state, steps, room
        self._train, self._validation = train, validation
        self._log = Log(
            room.folder if room.ranks.first else None,
            total_steps=state.plan.steps,
            first_step=state.step,
            live=room.live if room.ranks.first else None,
        )
        wanted, device = state.config.train.compile, room.ranks.device
        network = compiled(state.network, wanted=wanted, device=device)
        self._trained = room.ranks.wrap(network)
        self._learner = Learner(self._trained, state.optimizers, state.selection)
        self._pace = pace
        self._before_s = state.seconds
        self._started_s = self._written_s = time.perf_counter()

    def to_the_end(self) -> Outcome:
        """All epochs that are left, then the weights to keep."""
        state, first = self._state, self._state.step
        self._log.say(f"{state.plan.told()}, from step {first}")
        try:
            while state.step < state.plan.steps and not self._patience_is_over():
                self._epoch()
            scores = self._keep()
        finally:
            self._log.close()
        return Outcome(
            plan=state.plan,
            steps=state.step,
            taken=state.step - first,
            seconds=self._seconds(),
            scores=scores,
        )

    def _epoch(self) -> None:
        """The rest of the current epoch, a row in the log, a checkpoint."""
        state, plan = self._state, self._state.plan
        epoch, first = divmod(state.step, plan.steps_per_epoch)
        begun_s, begun_step, shown_s = time.perf_counter(), state.step, 0.0
        losses = torch.zeros((), device=self._room.ranks.device)
        self._mode()
        for batch in self._train.epoch(epoch, first_step=first):
            losses += self._take(batch)
            self._keep_pace()
            done = state.step - begun_step
            last = state.step == state.plan.steps
            spent_s = time.perf_counter() - begun_s
            if done % SHOW_EVERY == 0 or last or spent_s - shown_s > SHOW_S:
                shown_s = spent_s
                rate = done * state.config.train.batch_size / spent_s
                loss = self._mean(losses, done)
                self._log.step(state.step, loss=loss, images_per_s=rate)
            if last:
                break
            # At the end of an epoch its own checkpoint follows, with its validation: a
            # run that went on from one without would never look at that epoch.
            if state.step % plan.steps_per_epoch and self._checkpoint_is_due():
                self._mean(losses, done)  # what is written replaces the last good one
                self._checkpoint()
        row = {"train_loss": self._mean(losses, state.step - begun_step)}
        self._finish_epoch(epoch + 1, row, time.perf_counter() - begun_s)

    def _take(self, batch: Batch) -> torch.Tensor:
        """One step, and what averages the weights after it; the loss, detached."""
        state, plan = self._state, self._state.plan
        moment = self._steps.moment(
            state.step, steps_per_epoch=plan.steps_per_epoch, progress=state.progress
        )
        loss = self._steps.take(self._learner, batch, moment, precision=plan.precision)
        state.step += 1
        if state.lookahead is not None:
            state.lookahead.update(moment.step, state.progress)
        if state.ema is not None and state.progress >= state.config.train.ema_from:
            state.ema.update()
        return loss

    def _keep_pace(self) -> None:
        """At some marks of a time budget, plan the rest anew."""
        state, minutes = self._state, self._state.config.train.minutes
        self._pace.step(state.plan, state.step)
        if minutes is None or not self._pace.is_due(state.plan, state.step):
            return
        if self._room.ranks.device.type == "cuda":
            torch.cuda.synchronize(self._room.ranks.device)  # it runs behind
        left_s = usable_s(minutes) - self._seconds()
        plan = self._pace.corrected(state.plan, state.step, left_s=left_s)
        state.plan = agreed(plan, self._room.ranks)
        self._log.aim(state.plan.steps)
        self._log.say(f"{state.plan.epochs:.2f} epochs, by the pace to here")

    def _finish_epoch(self, epoch: int, row: dict[str, float], spent_s: float) -> None:
        state, config = self._state, self._state.config
        begun_s, last = time.perf_counter(), state.step == state.plan.steps
        validates = last or epoch % config.train.validate_every == 0
        if self._validation is not None and validates:
            with self._averaged():
                scores = self._validation.scores(state.network, state.plan.precision)
                # The norms of each rank have seen other images. By a score of its own
                # one would stop, and the others wait for its gradients forever.
                agree = self._room.ranks.agree
                scores = {name: agree(value) for name, value in scores.items()}
                self._finite(scores["loss"], "validation loss")
                self._remember_best(scores)
            row |= {f"validation_{name}": value for name, value in scores.items()}
        spent = {"seconds": self._seconds(), "epoch_seconds": spent_s}
        row = {name: round(value, 2) for name, value in spent.items()} | row
        self._log.epoch({"step": state.step, "epoch": epoch} | row)
        # Not after each of epochs that a GPU does in a second: writing takes as long.
        if validates or self._checkpoint_is_due():
            self._checkpoint()
        if validates:
            self._pace.look(time.perf_counter() - begun_s)

    def _remember_best(self, scores: Scores) -> None:
        """Patience goes by the first score; what is kept, among equals, by the loss."""
        state, score = self._state, next(iter(scores.values()))
        gains = state.best is None or score > state.best
        state.looks_without_gain = 0 if gains else state.looks_without_gain + 1
        if not state.is_gain(scores):
            return
        state.best, state.best_loss = score, scores["loss"]
        if state.config.train.keep == "best":
            state.best_weights = {
                name: value.clone()
                for name, value in state.network.state_dict().items()
            }

    def _patience_is_over(self) -> bool:
        patience = self._state.config.train.patience
        return patience is not None and self._state.looks_without_gain >= patience

    def _keep(self) -> Scores:
        """Leave the weights to keep in the network, and say how good they are."""
        state = self._state
        use_products(state.network, False)  # it is done with gradients
        if state.best_weights:
            state.network.load_state_dict(state.best_weights)
        elif state.ema is not None and state.ema.averages:
            state.network.load_state_dict(state.ema.averages)
        elif state.lookahead is not None:
            state.lookahead.settle(state.step)
        if self._validation is None:
            return {}
        return self._validation.scores(state.network, state.plan.precision)

    def _averaged(self) -> AbstractContextManager[None]:
        """The weights that would be kept if the training ended here, for a while."""
        state = self._state
        if state.ema is not None and state.ema.averages:
            return state.ema.in_place()
        ahead = state.lookahead
        return nullcontext() if ahead is None else ahead.in_place(state.step)

    def _mode(self) -> None:
        """Training mode, with the norms frozen where the config wants it."""
        self._trained.train()
        if self._state.config.train.frozen_norms:
            for module in self._trained.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _mean(self, losses: torch.Tensor, count: int) -> float:
        if (selection := self._state.selection) is not None:
            self._finite(selection.total_loss.item(), "loss of the proxy")
        return self._finite(losses.item() / count, "loss")

    def _finite(self, loss: float, name: str) -> float:
        """The loss, or the end of the run."""
        if math.isfinite(loss):
            return loss
        raise self._state.diverged(f"the {name} is {loss}")

    def _checkpoint_is_due(self) -> bool:
        due_s = self._state.config.train.checkpoint_minutes * 60
        return time.perf_counter() - self._written_s >= due_s

    def _checkpoint(self) -> None:
        self._state.seconds = self._seconds()
        if self._room.ranks.first:
            self._state.write(self._room.folder / CHECKPOINT)
        self._written_s = time.perf_counter()

    def _seconds(self) -> float:
        return self._before_s + time.perf_counter() - self._started_s
