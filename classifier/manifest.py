"""`manifest.json` ↔ **Manifest**: the contract of a bundle, strict and versioned.

What changes a prediction has no default: a missing or unknown field refuses to load,
naming it. The format is described for people in `models/README.md`.
"""

import re
from collections import Counter
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from classifier.texts import Description, LabelText, Prose

# Bounds that keep a hostile or mistyped manifest from asking for unbounded memory.
MAX_LABELS = 100_000
MAX_SIDE = 4096
MAX_VERSION_DIGITS = 18  # a time in microseconds has 16; 64 bits hold them all
BINARY_LABELS = 2  # negative, positive

Version = Annotated[int, Field(ge=1, lt=10**MAX_VERSION_DIGITS)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
NAME_RULE = (  # the pattern in words
    "its name must begin with a small letter or a digit and have at most 64 of them, "
    "dots, hyphens and underscores"
)
FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
FileName = Annotated[str, Field(pattern=FILE_NAME.pattern)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


Activation = Literal["softmax", "sigmoid"]
Color = Literal["rgb", "gray"]
Resize = Literal["crop", "squash", "pad"]
Interpolation = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]


class Task(StrEnum):
    """The four kinds of image classification."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    FINE_GRAINED = "fine-grained"

    @property
    def activation(self) -> Activation:
        """What makes scores of logits: a sigmoid where each label is a yes or no."""
        yes_or_no = self in (Task.BINARY, Task.MULTILABEL)
        return "sigmoid" if yes_or_no else "softmax"

    def logits(self, labels: int) -> int:
        """K, the width of a network's output: 1 for binary, else one a label."""
        return 1 if self is Task.BINARY else labels


class Precision(StrEnum):
    """The arithmetic of a graph variant."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Strict(BaseModel):
    """Frozen; unknown fields, missing fields and coercions are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def describe_problems(
    error: ValidationError, *, whole: str = "", limit: int | None = None
) -> str:
    """What is wrong, field by field; `whole` names what is wrong as a whole."""
    problems = []
    for detail in error.errors(include_url=False)[:limit]:
        place = ".".join(map(str, detail["loc"])) or whole
        problems.append(f"{place}: {sentence(detail)}" if place else sentence(detail))
    return "; ".join(problems)


def sentence(detail: ErrorDetails) -> str:
    """What is wrong, without the words that pydantic puts before our own."""
    return detail["msg"].removeprefix("Value error, ")


class Label(Strict):
    """One class: `id` is stable (a wnid, a slug), `name` is for people."""

    id: LabelText
    name: LabelText
    group: LabelText | None


class PreprocessSpec(Strict):
    """How an image becomes `pixels`, uint8 [H, W, C]; normalization is in the graph.

    `crop`: the short side is scaled to `short_side`, then the center H x W is cut out.
    `squash`: both sides are scaled to H x W, whatever the aspect.
    `pad`: scaled to fit into H x W, the rest is `background`.
    """

    height: Side
    width: Side
    color: Color
    resize: Resize
    short_side: Side | None
    interpolation: Interpolation
    background: tuple[Byte, Byte, Byte]  # RGB; transparent parts show it

    @property
    def channels(self) -> int:
        """C of `pixels`."""
        return 3 if self.color == "rgb" else 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of `pixels`."""
        return self.height, self.width, self.channels

    @model_validator(mode="after")
    def _check_short_side(self) -> Self:
        longest = max(self.height, self.width)
        if self.resize == "crop" and (
            self.short_side is None or self.short_side < longest
        ):
            raise ValueError(
                f"short_side is {self.short_side}; "
                f"resize 'crop' needs at least {longest}"
            )
        if self.resize != "crop" and self.short_side is not None:
            raise ValueError(f"short_side must be null when resize is '{self.resize}'")
        return self


class PostprocessSpec(Strict):
    """How logits become scores and decisions."""

    activation: Activation
    # under 0.01 it would only overflow: every score would be 0 or 1
    temperature: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]
    # binary: one; multilabel: one a label; else null
    thresholds: tuple[Probability, ...] | None
    top_k: PositiveInt
    abstain_threshold: Probability | None  # multiclass and fine-grained only


class MetricSet(Strict):
    """Values measured on one split of one data set."""

    dataset: str
    split: str
    n: PositiveInt
    values: dict[str, FiniteFloat]


class Gate(Strict):
    """The check that a smaller graph had to pass against fp32."""

    passed: bool
    dataset: str
    n: PositiveInt
    accuracy_drop: (
        FiniteFloat  # fp32 minus this variant, as a fraction (0.01 = one point)
    )
    agreement: Probability  # share of equal decisions, one an image or one a label
    reason: str  # what was tried and what failed, for a person


class GraphVariant(Strict):
    """One ONNX file: the same network in one arithmetic."""

    precision: Precision
    file: FileName
    sha256: Sha256
    golden_tolerance: Annotated[
        float, Field(gt=0, allow_inf_nan=False)
    ]  # max |logit error|
    gate: Gate | None  # null for the reference precision
    metrics: tuple[MetricSet, ...]


class Optimization(Strict):
    """How the smaller graphs of a version came to those of an earlier one."""

    version: Version  # the earlier one
    command: str
    commit: str | None
    data_sha256: dict[str, str]
    versions: dict[str, str]
    hardware: str
    created: str  # ISO 8601, UTC


class Provenance(Strict):
    """Where a bundle comes from: enough to make it again."""

    command: str
    config: str | None
    commit: str | None
    data_sha256: dict[str, str]
    versions: dict[str, str]
    hardware: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    created: str  # ISO 8601, UTC
    license: Prose
    source: Prose
    # oldest first; bundles from before it was recorded do not have the field
    optimizations: tuple[Optimization, ...] = ()


class Manifest(Strict):
    """All that the service must know of a bundle, apart from the graphs."""

    schema_version: Literal[1]
    name: Name
    version: Version
    description: Description
    task: Task
    labels: Annotated[tuple[Label, ...], Field(min_length=2, max_length=MAX_LABELS)]
    preprocess: PreprocessSpec
    postprocess: PostprocessSpec
    graphs: Annotated[tuple[GraphVariant, ...], Field(min_length=1, max_length=3)]
    provenance: Provenance

    @property
    def full_name(self) -> str:
        """NAME/VERSION, as the bundle's folder is named and as settings name it."""
        return f"{self.name}/{self.version}"

    @property
    def logits(self) -> int:
        """K, the width of the graph's output: 1 for binary, else one a label."""
        return self.task.logits(len(self.labels))

    def graph(self, precision: Precision) -> GraphVariant | None:
        """The variant of that precision, if the bundle has it."""
        return next((g for g in self.graphs if g.precision == precision), None)

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        ids = [label.id for label in self.labels]
        twice = [label_id for label_id, n in Counter(ids).items() if n > 1]
        if twice:
            raise ValueError(f"label id {twice[0]!r} occurs more than once")
        if self.task is Task.BINARY and len(self.labels) != BINARY_LABELS:
            raise ValueError(
                "a binary bundle has 2 labels (negative, positive), "
                f"not {len(self.labels)}"
            )
        ungrouped = [label.id for label in self.labels if label.group is None]
        if self.task is Task.FINE_GRAINED and ungrouped:
            raise ValueError(
                f"label {ungrouped[0]!r} has no group; fine-grained labels need one"
            )
        return self

    @model_validator(mode="after")
    def _check_postprocess(self) -> Self:
        spec = self.postprocess
        activation = self.task.activation
        if spec.activation != activation:
            raise ValueError(
                f"activation is {spec.activation!r}; {self.task} needs {activation!r}"
            )
        thresholds = None if spec.thresholds is None else len(spec.thresholds)
        wanted = self.logits if activation == "sigmoid" else None
        if thresholds != wanted:
            raise ValueError(f"{self.task} needs {wanted} thresholds, not {thresholds}")
        if activation == "sigmoid" and spec.abstain_threshold is not None:
            raise ValueError(f"abstain_threshold must be null for {self.task}")
        if spec.top_k > len(self.labels):
            raise ValueError(
                f"top_k is {spec.top_k}; there are {len(self.labels)} labels"
            )
        return self

    @model_validator(mode="after")
    def _check_graphs(self) -> Self:
        precisions = [graph.precision for graph in self.graphs]
        if len(set(precisions)) != len(precisions):
            raise ValueError("a precision occurs more than once among the graphs")
        if len({graph.file for graph in self.graphs}) != len(self.graphs):
            raise ValueError("two graphs name the same file")
        return self
