"""TOML → **Config**: everything that a training run depends on, strict and frozen.

A config is a runnable claim: its head says with which command, on what, how long and
how well. Unknown keys are errors that name what is allowed; nothing is coerced.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from classifier.manifest import Byte, PreprocessSpec, Side, Task
from training.configs.task_sections import BundleConfig, NegativesConfig, TransferConfig
from training.errors import ConfigError
from training.optimizers.schedule import Shape

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
    validation: Share = 0.1  # under 1: a part of train; else a number of images
    test: Share = 0.0
    positive: tuple[str, ...] = ()  # binary from many labels: these against the rest
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


class OptimizerConfig(Section):
    """One optimizer for some of the parameters; of several, the first that fits.

    `parameters` is `all`, `filters` (4 axes), `matrices` (2 axes), `vectors` (biases
    and norms) or a regular expression that the whole name must match. `frozen` leaves
    them as they are. Rates are for the mean loss of a batch.
    """

    parameters: str = "all"
    kind: Literal["sgd", "adamw", "muon", "frozen"]
    learning_rate: Rate = 0.0
    momentum: Fraction = 0.9
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
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
    patience: PositiveInt | None = None  # epochs without a better validation score
    keep: Literal["last", "best"] = "last"  # by validation score
    validate_every: PositiveInt = 1  # epochs
    checkpoint_minutes: Positive = 5.0  # at least so often, besides each epoch's end

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if (self.epochs is None) == (self.minutes is None):
            raise ValueError("give either epochs or minutes")
        return self


class EvaluateConfig(Section):
    """How the trained network is measured."""

    views: Literal[1, 2, 6] = 1  # test-time augmentation: mirror; mirror and shifts


class Config(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    task: Task
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig
    network: NetworkConfig
    optimizer: tuple[OptimizerConfig, ...] = ()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    transfer: TransferConfig | None = None  # start from pretrained weights
    negatives: tuple[NegativesConfig, ...] = ()
    bundle: BundleConfig = BundleConfig()

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        if bool(self.optimizer) == (self.transfer is not None):
            raise ValueError(
                "give either [[optimizer]] or [transfer], which makes its own"
            )
        if self.negatives and self.task is not Task.BINARY:
            raise ValueError(f"[[negatives]] are for binary tasks; this is {self.task}")
        return self


def read_config(path: Path, changes: tuple[str, ...] = ()) -> Config:
    """Read a TOML file; `changes` such as `train.epochs=3` go over it.

    Raises:
        ConfigError: every problem, each with its key and what is allowed there.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    for change in changes:
        _apply(table, change)
    return parse_config(table, str(path))


def parse_config(table: dict[str, Any], where: str) -> Config:
    """Check a table; `where` names it in messages."""
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail)}" for detail in error.errors())
        raise ConfigError(f"{where}:\n{problems}") from error


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise ConfigError(f"{change!r} is not of the form section.key=value")
    *sections, last = key.strip().split(".")
    if sections == ["train"] and last in ("epochs", "minutes"):  # one or the other
        table.get("train", {}).pop("minutes" if last == "epochs" else "epochs", None)
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{change!r}: {section} is not a section of the config")
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:  # a bare word is a string
        table[last] = value.strip()


def _explain(detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"]) or "(top level)"
    if detail["type"] != "extra_forbidden":
        return f"{key}: {detail['msg']}"
    section: Any = Config
    for part in detail["loc"][:-1]:
        if isinstance(part, str):
            section = SECTIONS.get(part, section)
    return f"{key}: unknown; allowed are {', '.join(section.model_fields)}"


SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "network": NetworkConfig,
    "optimizer": OptimizerConfig,
    "transfer": TransferConfig,
    "negatives": NegativesConfig,
    "bundle": BundleConfig,
    "schedule": ScheduleConfig,
    "augment": AugmentConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
}
