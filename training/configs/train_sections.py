"""TOML → **sections**: augmentation, training, selection, loss and evaluation."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from training.configs.sections import Fraction, Positive, Rate, Section


class AugmentConfig(Section):
    """Random changes of the training images; all are off unless named."""

    flip: Literal["none", "random", "alternating"] = "none"
    """Mirror: by chance, or in every other epoch."""
    crop: Annotated[int, Field(ge=0)] = 0
    """Shift by up to so many pixels; the border is reflected."""
    cutout: Annotated[int, Field(ge=0)] = 0
    """Side of a square that is blanked, in pixels."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Up to so many degrees, either way."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """By up to this part, in or out."""
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """By up to this part of the side."""
    resized_crop: Annotated[float, Field(gt=0, le=1)] | None = None
    """The smallest part of the area that is cut out and enlarged."""
    random_augment: tuple[PositiveInt, Annotated[float, Field(ge=0, le=10)]] | None = (
        None
    )
    """RandAugment: how many operations, and their magnitude. Timm counts as far, but
    posterizes harder; of torchvision's, which ends at 30, give a third."""
    mixup: Rate = 0.0
    """Alpha of the Beta distribution that two images are blended by."""
    cutmix: Rate = 0.0
    """As `mixup`, of the area that is pasted."""
    sizes: tuple[tuple[Fraction, PositiveInt], ...] = ()
    """Growing squares: pairs of a part of the training and the side until then; the
    last part is 1."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        ends = [end for end, _ in self.sizes]
        if ends != sorted(ends) or (ends and ends[-1] != 1):
            raise ValueError(
                f"sizes must be in order and end at 1.0; their ends: {ends}"
            )
        return self


class TrainConfig(Section):
    """How long, how large a batch, and what goes around the optimizer's step."""

    epochs: Positive | None = None
    """How long; a part of one is allowed: 9.9. Either this or `minutes`; neither where
    `[transfer]` fits a probe alone."""
    minutes: Positive | None = None
    """Time budget, from which the epochs are planned."""
    batch_size: PositiveInt = 32
    """Images a step."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The part of the truth that is spread over all labels."""
    clip_norm: Positive | None = None
    """Longest gradient."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Average of the weights: its decay a step. 0 is off."""
    ema_from: Fraction = 0.5
    """Part of the training after which averaging begins."""
    lookahead: Annotated[int, Field(ge=1, le=20)] | None = None
    """Steps between two jumps back to the slow weights, which forget at least 5 % with
    each step. They are what is validated and kept, if no `ema` is."""
    frozen_norms: bool = False
    """Batch norms keep their statistics, for fine-tuning."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the arithmetic; `auto` takes what is fastest by the clock."""
    compile: bool = False
    """Fuse kernels; on CUDA only."""
    patience: PositiveInt | None = None
    """End after so many looks at validation without a better score."""
    keep: Literal["last", "best"] = "last"
    """Which weights; best by validation score, among equals by the lower loss."""
    validate_every: PositiveInt = 1
    """Epochs between two looks at validation, each with a checkpoint."""
    checkpoint_minutes: Positive = 5.0
    """A checkpoint at least so often."""


class SelectionConfig(Section):
    """Which images of a batch are learned from: those that a small network, the proxy,
    which learns beside the large one, finds hardest."""

    proxy: str
    """Its name, one of those that `linnaeus networks` lists; it has the optimizers of
    the large one and its `clip_norm`."""
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of the images looked at that is learned from. A step looks at
    `batch_size` / `keep` images."""


class LossConfig(Section):
    """What a wrong answer costs, and how rare labels are made up for."""

    kind: Literal["cross-entropy", "asymmetric"] = "cross-entropy"
    """Asymmetric (Ridnik et al., arXiv:2009.14119): binary and multi-label tasks."""
    gamma_positive: Rate = 0.0
    """Of the asymmetric loss: 0, or 1 and more."""
    gamma_negative: Rate = 4.0
    """As `gamma_positive`."""
    clip: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of the asymmetric loss: negatives of a score under it cost nothing."""
    positive_weight: Literal["none", "ratio", "root"] = "none"
    """A positive counts negatives / positives times, or the root of that; binary and
    multi-label tasks."""
    positive_weight_cap: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 20.0
    """At most so many times."""
    logit_adjustment: Rate = 0.0
    """Times the log of each label's frequency (Menon et al., arXiv:2007.07314); 1 is
    the paper's, 0 is off."""
    prior_bias: bool = True
    """A fresh head of a binary or multi-label task begins with each label's frequency
    as its answer; with `positive_weight`, with that of weighted positives."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        gammas = ("gamma_positive", "gamma_negative")
        for name in gammas:
            gamma = getattr(self, name)
            if 0 < gamma < 1:
                raise ValueError(
                    f"{name} is {gamma}; it must be 0 or at least 1: below 1 the slope "
                    "at an answer that is exactly right has no end"
                )
        own = (*gammas, "clip")
        if self.kind != "asymmetric" and self.changed(own):
            raise ValueError(f"{', '.join(own)} belong to kind 'asymmetric'")
        if self.kind == "asymmetric" and self.positive_weight != "none":
            raise ValueError("kind 'asymmetric' has its gammas in place of a weight")
        if self.positive_weight != "none" and self.logit_adjustment:
            raise ValueError(
                "positive_weight and logit_adjustment do the same; give one of them"
            )
        return self


class EvaluateConfig(Section):
    """How the trained network is measured."""

    views: Literal[1, 2, 6] = 1
    """Of an image, of which `--test` takes the mean: it; its mirror image; both also
    shifted."""
