"""TOML → **Config**: everything that a training run depends on, strict and frozen.

A config is a runnable claim: its head says with which command, on what, how long and
how well. Unknown keys are errors that name what is allowed; nothing is coerced, but for
whole numbers where a fraction may stand.
"""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from classifier.manifest import NAME_RULE, Name, Task, sentence
from training.configs.sections import (
    DataConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    Section,
)
from training.configs.task_sections import (
    REQUIREMENTS,
    BundleConfig,
    NegativesConfig,
    TransferConfig,
)
from training.configs.train_sections import (
    AugmentConfig,
    EvaluateConfig,
    LossConfig,
    SelectionConfig,
    TrainConfig,
)
from training.errors import ConfigError


class Config(Section):
    """A whole run."""

    name: Name
    """Of the bundle to come."""
    task: Task
    """What an answer is: one label, several, or yes and no."""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0  # as scikit-learn takes it
    """Of all that is random."""
    data: DataConfig
    network: NetworkConfig
    optimizer: tuple[OptimizerConfig, ...] = ()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    selection: SelectionConfig | None = None  # learn from the hardest images only
    loss: LossConfig = LossConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    transfer: TransferConfig | None = None  # start from pretrained weights
    negatives: tuple[NegativesConfig, ...] = ()
    bundle: BundleConfig = BundleConfig()

    @property
    def probe_only(self) -> bool:
        """Whether a probe is fitted, and no layer learns by epochs."""
        return self.transfer is not None and not self.transfer.finetune

    @property
    def kept(self) -> float:
        """The part of the images of a step that is learned from: 1, or a selection."""
        return 1.0 if self.selection is None else self.selection.keep

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        if bool(self.optimizer) == (self.transfer is not None):
            raise ValueError(
                "give either [[optimizer]] or [transfer], which makes its own"
            )
        if self.negatives and self.task is not Task.BINARY:
            raise ValueError(f"[[negatives]] are for binary tasks; this is {self.task}")
        if self.data.positive and self.task is not Task.BINARY:
            raise ValueError(
                f"data.positive is {list(self.data.positive)}; what means yes is for "
                f"binary tasks; this is {self.task}"
            )
        return self

    @model_validator(mode="after")
    def _check_freezing(self) -> Self:
        ends = [o.until or 1.0 for o in self.optimizer if o.kind != "frozen"]
        last = max(ends, default=0.0)
        if self.optimizer and last < 1:
            raise ValueError(
                f"every [[optimizer]] is frozen after {last:g} of the training, and "
                "nothing would learn any more; leave out until, or kind 'frozen', for "
                "at least one"
            )
        return self

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        both_or_none = (self.train.epochs is None) == (self.train.minutes is None)
        if both_or_none and not self.probe_only:
            raise ValueError("give either train.epochs or train.minutes")
        return self

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        if self.selection and self.transfer:
            raise ValueError(
                "[selection] is for a network that learns from scratch; [transfer] "
                "begins with one that finds hardly an image hard"
            )
        return self

    @model_validator(mode="after")
    def _check_probe(self) -> Self:
        sigmoid = self.task.activation == "sigmoid"
        if sigmoid and self.transfer and self.transfer.probe == "discriminant":
            raise ValueError(
                "transfer.probe is 'discriminant', which tells kinds from each other; "
                "a binary or multi-label task needs 'logistic'"
            )
        return self

    @model_validator(mode="after")
    def _check_adjustment(self) -> Self:
        by_loss = self.transfer is None or self.transfer.probe == "logistic"
        if self.loss.logit_adjustment and not by_loss:
            raise ValueError(
                "loss.logit_adjustment is for what learns by a loss, and "
                "transfer.probe 'discriminant' does not; take 'logistic', or leave the "
                "adjustment out"
            )
        return self

    @model_validator(mode="after")
    def _check_color(self) -> Self:
        if self.transfer and self.data.color != "rgb":
            raise ValueError(
                f"data.color is {self.data.color!r}; the pretrained weights that "
                "[transfer] begins with are for 'rgb', which gray images become"
            )
        return self

    @model_validator(mode="after")
    def _check_sides(self) -> Self:
        height, width = self.data.height, self.data.width
        for name in ("crop", "cutout"):
            pixels = getattr(self.augment, name)
            if pixels >= min(height, width):
                raise ValueError(
                    f"augment.{name} is {pixels} pixels; images of {height} x {width} "
                    f"allow 0 to {min(height, width) - 1}"
                )
        if self.augment.sizes and height != width:
            raise ValueError(
                f"augment.sizes are sides of squares; images of {height} x {width} "
                "would be deformed"
            )
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        sigmoid = self.task.activation == "sigmoid"
        if not sigmoid and self.loss.kind == "asymmetric":
            raise ValueError(
                "loss.kind 'asymmetric' is for binary and multilabel tasks; this is "
                f"{self.task}"
            )
        if not sigmoid and self.loss.positive_weight != "none":
            raise ValueError(
                "loss.positive_weight is for binary and multilabel tasks; this is "
                f"{self.task}: see loss.logit_adjustment"
            )
        return self

    @model_validator(mode="after")
    def _check_bundle(self) -> Self:
        for name in self.bundle.misplaced(self.task):
            raise ValueError(
                f"bundle.{name} is for {' and '.join(REQUIREMENTS[name])} tasks; "
                f"this is {self.task}"
            )
        return self


def read_config(path: Path, changes: tuple[str, ...] = ()) -> Config:
    """Read a TOML file; `changes` such as `train.epochs=3` go over it.

    Raises:
        ConfigError: every problem, each with its key and what is allowed there.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # numbers, and depth, too
        raise ConfigError(f"cannot read {path}: {error}") from error
    for change in changes:
        _apply(table, change)
    return parse_config(table, str(path))


def parse_config(table: dict[str, Any], where: str) -> Config:
    """Check a table; `where` names it in messages."""
    try:
        text = json.dumps(with_normalization(table), default=str)
    except (ValueError, RecursionError) as error:  # TOML's numbers, and dotted keys
        raise ConfigError(f"cannot read {where}: {error}") from error
    try:
        # Strict is stricter with Python's values: no list may stand for a tuple there.
        return Config.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail)}" for detail in error.errors())
        raise ConfigError(f"{where}:\n{problems}") from error


def with_normalization(table: dict[str, Any]) -> dict[str, Any]:
    """With `mean` and `std` of the pretrained weights, where neither is given."""
    data = table.get("data")
    if not (isinstance(table.get("transfer"), dict) and isinstance(data, dict)):
        return table
    if {"mean", "std"} & data.keys():
        return table
    from training.pretrained.published import MEAN, STD  # noqa: PLC0415 - torch is slow

    return table | {"data": data | {"mean": MEAN, "std": STD}}


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise ConfigError(f"{change!r} is not of the form section.key=value")
    *sections, last = key.strip().split(".")
    inside: Any = table
    for section in sections:
        inside = _inside(inside, section, change)
    if isinstance(inside, list):
        raise ConfigError(
            f"{change!r}: {sections[-1]} is a list; say which of its {len(inside)} "
            f"entries, as in {'.'.join(sections)}.0.{last}=…"
        )
    if sections == ["train"] and last in ("epochs", "minutes"):  # one or the other
        inside.pop("minutes" if last == "epochs" else "epochs", None)
    try:
        inside[last] = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # a bare word is a string
        inside[last] = value.strip()


def _inside(table: Any, section: str, change: str) -> dict[str, Any] | list[Any]:
    """A section of a table, which is made if need be, or an entry of a list, from 0."""
    if isinstance(table, list):
        if not section.isdecimal() or int(section) >= len(table):
            raise ConfigError(
                f"{change!r}: {section} is no entry of the list; allowed are 0 to "
                f"{len(table) - 1}"
            )
        found = table[int(section)]
    else:
        found = table.setdefault(section, {})
    if not isinstance(found, dict | list):
        raise ConfigError(f"{change!r}: {section} is not a section of the config")
    return found


def _explain(detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"]) or "(top level)"
    if detail["type"] == "string_pattern_mismatch":  # of names only
        return f"{key}: no bundle can be called {detail['input']!r}: {NAME_RULE}"
    if detail["type"] != "extra_forbidden":
        return f"{key}: {sentence(detail)}{_given(detail)}"
    section: Any = Config
    for part in detail["loc"][:-1]:
        if isinstance(part, str):
            section = SECTIONS.get(part, section)
    return f"{key}: unknown; allowed are {', '.join(section.model_fields)}"


def _given(detail: ErrorDetails) -> str:
    """The value, which our own sentences have already, where it is a short one."""
    value = detail["input"]
    if detail["type"] == "value_error" or not isinstance(value, str | int | float):
        return ""
    return f"; it is {json.dumps(value, ensure_ascii=False)[:60]}"


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
    "selection": SelectionConfig,
    "loss": LossConfig,
    "evaluate": EvaluateConfig,
}
