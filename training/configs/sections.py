"""TOML → **sections**: data, network, optimizers, schedule, augmentation, training.

Each is frozen, and unknown keys are errors. Those of transfer and of bundles are in
`task_sections`.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from classifier.manifest import Byte, PreprocessSpec, Side
from training.optimizers.schedule import Shape

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]  # of an average, a step

FROM_DATA = ("classes", "in_channels", "image_size")  # what a network is built for
DEFAULT_VALIDATION = 0.1  # of train, where the data has no validation split


class Section(BaseModel):
    """Frozen; unknown keys are errors. TOML's arrays may stand for tuples."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """What to learn from, and how an image becomes pixels."""

    path: str  # below the data root
    height: Side
    width: Side
    color: Literal["rgb", "gray"] = "rgb"
    resize: Literal["crop", "squash", "pad"] = "squash"
    short_side: Side | None = None
    interpolation: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = (
        "bicubic"
    )
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    mean: tuple[Fraction, ...]  # of each channel, on the 0..1 scale
    std: tuple[Positive, ...]
    # under 1: a part of train; else a number of images
    validation: Share = DEFAULT_VALIDATION
    test: Share = 0.0
    # What belongs together is never parted by a cut: file names (from the data set's
    # folder on) that this regular expression finds the same words in, or photos whose
    # ImageNet features are so alike (mean cosine within a scene; 0.3 is loose, 0.6 is
    # nearly the same view).
    series: str | None = None
    alike: Annotated[float, Field(gt=0, lt=1)] | None = None
    positive: tuple[str, ...] = ()  # binary: the labels that mean yes, of two or many
    resident_mib: PositiveInt = 4096  # larger sets stream from worker processes

    @property
    def spec(self) -> PreprocessSpec:
        """The preprocessing that training, evaluation and service share."""
        return PreprocessSpec(
            height=self.height,
            width=self.width,
            color=self.color,
            resize=self.resize,
            short_side=self.short_side,
            interpolation=self.interpolation,
            background=self.background,
        )

    @model_validator(mode="after")
    def _check_spec(self) -> Self:
        try:
            _ = self.spec
        except ValidationError as error:
            reason = error.errors()[0]["ctx"]["error"]  # the fields alone are valid
            raise ValueError(str(reason)) from error
        return self

    @model_validator(mode="after")
    def _check_scenes(self) -> Self:
        if self.series is None:
            return self
        if self.alike is not None:
            raise ValueError("tell scenes by series or by alike, not by both")
        try:
            re.compile(self.series)
        except re.error as error:
            raise ValueError(f"series is no regular expression: {error}") from error
        return self

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        channels = 3 if self.color == "rgb" else 1
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} values; color "
                f"{self.color!r} has {channels} channels"
            )
        return self


class NetworkConfig(Section):
    """Which network, with which options of its own."""

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        given = [name for name in FROM_DATA if name in self.options]
        if given:
            raise ValueError(
                f"options has {', '.join(given)}: {', '.join(FROM_DATA)} come from the "
                "data and the task"
            )
        return self


class OptimizerConfig(Section):
    """One optimizer for some of the parameters; of several, the first that fits.

    `parameters` is `all`, `filters` (4 axes), `matrices` (2 axes), `vectors` (biases
    and norms) or a regular expression that the whole name must match. `frozen` leaves
    them as they are. Rates are for the mean loss of a batch.
    """

    parameters: str = "all"
    kind: Literal["sgd", "adamw", "muon", "frozen"]
    learning_rate: Rate = 0.0
    momentum: Decay = 0.9
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: Rate = 0.0
    until: Positive | None = None  # freeze these after this part of the training

    @model_validator(mode="after")
    def _check_rate(self) -> Self:
        if (self.learning_rate > 0) == (self.kind == "frozen"):
            raise ValueError(
                f"learning_rate is {self.learning_rate}; kind {self.kind!r} needs "
                f"{'none' if self.kind == 'frozen' else 'one above 0'}"
            )
        return self

    @model_validator(mode="after")
    def _check_momentum(self) -> Self:
        if self.kind == "muon" and self.momentum == 0:
            raise ValueError(
                "momentum is 0.0; kind 'muon' makes its average orthogonal and needs "
                "one above 0 and below 1"
            )
        return self


class ScheduleConfig(Section):
    """The shape of the learning rate; see `schedule.factor`."""

    shape: Shape = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0  # part of the training
    start: Fraction = 0.0
    final: Fraction = 0.0


class AugmentConfig(Section):
    """Random changes of the training images; all are off unless named."""

    flip: Literal["none", "random", "alternating"] = "none"
    crop: Annotated[int, Field(ge=0)] = 0  # shift by up to so many pixels, reflected
    cutout: Annotated[int, Field(ge=0)] = 0  # side of the square, pixels
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.0  # part of the side
    resized_crop: Annotated[float, Field(gt=0, le=1)] | None = None  # smallest area
    random_augment: tuple[PositiveInt, Annotated[float, Field(ge=0, le=10)]] | None = (
        None  # operations, magnitude
    )
    mixup: Rate = 0.0  # alpha of the Beta distribution
    cutmix: Rate = 0.0
    sizes: tuple[tuple[Fraction, PositiveInt], ...] = ()  # (until progress, side)

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

    epochs: Positive | None = None  # a part of an epoch is allowed: 9.9
    minutes: Positive | None = None  # instead: plan the epochs from a measured one
    batch_size: PositiveInt
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Positive | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay a step; 0 is off
    ema_from: Fraction = 0.5  # part of the training after which averaging begins
    lookahead: PositiveInt | None = None  # steps between two jumps
    frozen_norms: bool = False  # batch norms keep their statistics, for fine-tuning
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False  # on CUDA only
    patience: PositiveInt | None = None  # looks at validation without a better score
    keep: Literal["last", "best"] = "last"  # by validation score
    validate_every: PositiveInt = 1  # epochs; a checkpoint is written with it
    checkpoint_minutes: Positive = 5.0  # at least so often, besides

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if (self.epochs is None) == (self.minutes is None):
            raise ValueError("give either epochs or minutes")
        return self


class LossConfig(Section):
    """What a wrong answer costs; see `objectives.losses` and `objectives.imbalance`."""

    kind: Literal["cross-entropy", "asymmetric"] = "cross-entropy"
    # asymmetric, for several labels an image (Ridnik et al., arXiv:2009.14119)
    gamma_positive: Rate = 0.0
    gamma_negative: Rate = 4.0
    clip: Annotated[float, Field(ge=0, lt=1)] = 0.05
    # rare positives of sigmoid tasks: negatives / positives, or its root, up to a cap
    positive_weight: Literal["none", "ratio", "root"] = "none"
    positive_weight_cap: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 20.0
    # times the log of each label's frequency (Menon et al., arXiv:2007.07314); 1 is
    # the paper's, 0 is off
    logit_adjustment: Rate = 0.0
    # a fresh head of a sigmoid task begins with each label's frequency as its answer
    prior_bias: bool = True

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
        own = {name: getattr(self, name) for name in (*gammas, "clip")}
        plain = {name: type(self).model_fields[name].default for name in own}
        if self.kind != "asymmetric" and own != plain:
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

    views: Literal[1, 2, 6] = 1  # test-time augmentation: mirror; mirror and shifts
