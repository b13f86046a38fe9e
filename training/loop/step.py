"""batch → **one step**: augment, normalize, forward, loss, backward, update.

Everything random in it comes from the step's number; see `arithmetic.seed_step`.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.augmentation.augment import alternating_flip, augment, cutout, mix
from training.configs.config import Config
from training.data.batches import Batch
from training.errors import DeviceFullError
from training.loop.arithmetic import Precision, autocast, normalize, seed_step
from training.loop.selection import Selection
from training.objectives.objective import Objective
from training.optimizers import schedule
from training.optimizers.optimizers import Optimizers


@dataclass(frozen=True)
class Moment:
    """Where in the training a step lies."""

    step: int
    epoch: int
    progress: float  # 0 to 1
    side: int | None  # of the images; None: as they come


@dataclass(frozen=True)
class Learner:
    """What a step moves."""

    network: nn.Module  # as it is called: compiled, or averaging gradients
    optimizers: Optimizers
    selection: Selection | None = None  # of the images that it learns from


class Steps:
    """Turns batches into updates; holds what does not change during a run."""

    def __init__(
        self, config: Config, objective: Objective, *, samples: int, rank: int = 0
    ) -> None:
        self._config = config
        self.objective = objective
        self._samples, self._rank = samples, rank

    def moment(self, step: int, *, steps_per_epoch: int, progress: float) -> Moment:
        """The moment of a step, by its number and how far into the training it is."""
        moment = self.at(progress)
        return replace(moment, step=step, epoch=step // steps_per_epoch)

    def at(self, progress: float) -> Moment:
        """A moment so far into the training, as the first step."""
        sizes = self._config.augment.sizes
        side = schedule.image_size(progress, sizes) if sizes else None
        return Moment(step=0, epoch=0, progress=progress, side=side)

    def take(
        self,
        learner: Learner,
        batch: Batch,
        moment: Moment,
        *,
        precision: Precision,
        multiple: float = 1.0,
    ) -> Tensor:
        """One update, its rates times `multiple`; returns the loss, detached.

        Raises:
            DeviceFullError: the GPU has no room for it.
        """
        try:
            return self._update(learner, batch, moment, precision, multiple)
        except torch.OutOfMemoryError as error:
            raise DeviceFullError(
                f"{len(batch.pixels)} images in {precision} are too many for the "
                f"device; batch_size must be smaller: {str(error).splitlines()[0]}"
            ) from error

    def _update(
        self,
        learner: Learner,
        batch: Batch,
        moment: Moment,
        precision: Precision,
        multiple: float,
    ) -> Tensor:
        optimizers = learner.optimizers
        generator = seed_step(
            self._config.seed, moment.step, self._rank, batch.pixels.device
        )
        optimizers.schedule(moment.progress, multiple=multiple)
        augmentation = self._config.augment
        mixing = bool(augmentation.mixup or augmentation.cutmix)
        images = self.images(batch, moment, generator)
        truth = self.objective.truth(batch.labels, mixing=mixing)
        if learner.selection is not None:
            chosen = learner.selection.hardest(
                images,
                truth,
                progress=moment.progress,
                precision=precision,
                multiple=multiple,
            )
            images, truth = images[chosen], truth[chosen]
        images, truth = mix(images, truth, augmentation, generator=generator)
        with autocast(images.device, precision):
            logits = learner.network(images)  # [N, K]
        loss = self.objective.loss(logits.float(), truth)
        optimizers.zero_grad()
        loss.backward()
        optimizers.step(clip_norm=self._config.train.clip_norm)
        return loss.detach()

    def images(
        self, batch: Batch, moment: Moment, generator: torch.Generator
    ) -> Tensor:
        """Augmented and normalized, float [N, C, H, W], channels last in memory."""
        augmentation, data = self._config.augment, self._config.data
        flipped = None
        if augmentation.flip == "alternating":
            flipped = alternating_flip(
                batch.indices,
                epoch=moment.epoch,
                seed=self._config.seed,
                total=self._samples,
            )
        images = augment(
            batch.pixels, augmentation, flipped=flipped, generator=generator
        )
        images = normalize(images, data.mean, data.std)
        if augmentation.cutout:
            middle = images.new_zeros(images.shape[1])  # the mean, once normalized
            images = cutout(
                images, side=augmentation.cutout, fill=middle, generator=generator
            )
        if moment.side is not None and moment.side != images.shape[-1]:
            images = functional.interpolate(images, size=moment.side, mode="area")
        return images.contiguous(memory_format=torch.channels_last)
