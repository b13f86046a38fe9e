"""TOML → **sections**: data, network, optimizers and schedule.

Each is frozen, and unknown keys are errors. The text below a key is what docs/config.md
says of it. The other sections are in `train_sections` and `task_sections`.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from classifier.manifest import (
    Byte,
    Color,
    Interpolation,
    PreprocessSpec,
    Resize,
    Side,
)
from training.optimizers.schedule import Shape

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]  # of an average, a step

FROM_DATA = ("classes", "in_channels", "image_size")  # what a network is built for
# What each kind of optimizer reads, besides `parameters` and `learning_rate`.
OPTIMIZER_KEYS = {
    "sgd": ("momentum", "weight_decay", "until"),
    "adamw": ("betas", "weight_decay", "until"),
    "muon": ("momentum", "weight_decay", "until"),
    "frozen": (),
}
DEFAULT_VALIDATION = 0.1  # of train, where the data has no validation split


class Section(BaseModel):
    """Frozen; unknown keys are errors. TOML's arrays may stand for tuples."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    def changed(self, names: Iterable[str]) -> list[str]:
        """Those of the keys, in this order, that do not have their default."""
        fields = type(self).model_fields
        return [name for name in names if getattr(self, name) != fields[name].default]


class DataConfig(Section):
    """What to learn from, and how an image becomes pixels."""

    path: str
    """Below the folder of the data sets, `--data`."""
    height: Side
    """Of the image that the network reads, in pixels."""
    width: Side
    """As `height`."""
    color: Color = "rgb"
    """Channels: 3 or 1."""
    resize: Resize = "squash"
    """How an image of another shape fits: cut, deformed, or with a margin."""
    short_side: Side | None = None
    """With `resize = "crop"`, and only there: to this many pixels before the cut."""
    interpolation: Interpolation = "bicubic"
    """Of resizing, as Pillow names it."""
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """Red, green and blue behind transparent parts and in the margin."""
    mean: tuple[Fraction, ...]
    """Of each channel, where white is 1. Not needed with `[transfer]`, whose weights
    have their own."""
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    """As `mean`."""
    validation: Share = DEFAULT_VALIDATION
    """Cut from train if there is no such split: under 1 a part, else a number."""
    test: Share = 0.0
    """As `validation`, and cut before it, which is then a part of what is left."""
    series: str | None = None
    """Regular expression: files in whose names it finds the same words are one scene,
    which no cut parts."""
    alike: Annotated[float, Field(gt=0, lt=1)] | None = None
    """In place of `series`: photos of so high a mean cosine of ImageNet features are
    one scene. 0.3 is loose, 0.6 is nearly the same view."""
    positive: tuple[str, ...] = ()
    """Binary, and needed there: the labels that mean yes."""
    resident_mib: PositiveInt = 4096
    """If all pixels of a split take more than that, its images are not kept in memory
    but decoded anew in each epoch, by workers."""

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
    """One of those that `linnaeus networks` lists."""
    options: dict[str, Any] = {}
    """Its own ones, as its module in `training/networks/` has them."""

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
    """One optimizer for some of the parameters; of several, the first that fits."""

    parameters: str = "all"
    """`all`, `filters` (4 axes), `matrices` (2 axes), `vectors` (biases and norms), or
    a regular expression that the whole name must match."""
    kind: Literal["sgd", "adamw", "muon", "frozen"]
    """`sgd` is Nesterov's; `frozen` leaves the parameters as they are."""
    learning_rate: Rate = 0.0
    """At its peak, for the mean loss of a batch. Needed, except by `frozen`."""
    momentum: Decay = 0.9
    """Of `sgd` and `muon`, a step."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Of `adamw`."""
    weight_decay: Rate = 0.0
    """Decoupled from the gradient for `adamw` and `muon`, of which the latter takes it
    for matrices only."""
    until: Positive | None = None
    """Freeze these parameters after this part of the training. Their rate falls in a
    line from its peak at the first step to 0 there, whatever `[schedule]` says. Those
    of at least one optimizer learn to the end."""

    @model_validator(mode="after")
    def _check_rate(self) -> Self:
        if (self.learning_rate > 0) == (self.kind == "frozen"):
            raise ValueError(
                f"learning_rate is {self.learning_rate}; kind {self.kind!r} needs "
                f"{'none' if self.kind == 'frozen' else 'one above 0'}"
            )
        return self

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        own = OPTIMIZER_KEYS[self.kind]
        for name in self.changed(("momentum", "betas", "weight_decay", "until")):
            if name not in own:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; kind {self.kind!r} does not "
                    f"read it, but {', '.join(own) or 'nothing besides parameters'}"
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
    """The shape of the learning rate over the training."""

    shape: Shape = "linear"
    """How the rate falls; linear with a warm-up is one-cycle."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of the training in which the rate rises."""
    start: Fraction = 0.0
    """Of the peak, where the warm-up begins."""
    final: Fraction = 0.0
    """Of the peak, at the end; not for `constant`, which stays at the peak."""

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if self.shape == "constant" and self.changed(("final",)):
            raise ValueError(
                f"final is {self.final}; shape 'constant' stays at the peak, and "
                "'linear' and 'cosine' go to it"
            )
        if not self.warmup and self.changed(("start",)):
            raise ValueError(
                f"start is {self.start}; it is where a warm-up begins, and there is "
                "none: warmup is 0"
            )
        return self
