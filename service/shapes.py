"""answer ⇄ **JSON**: the shapes of every body, as OpenAPI shows them.

Single answers are written by `service/answers.py` without going through these models;
a property test holds the two together.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from classifier.manifest import Color, Resize, Task, Version

BASE64: JsonDict = {"type": "string", "format": "byte"}
Score = Annotated[float, Field(ge=0, le=1)]
# To generators for Java and others `integer` alone has 32 bits.
LongVersion = Annotated[Version, Field(json_schema_extra={"format": "int64"})]


class Shape(BaseModel):
    """Strict both ways: a field that is not documented here does not exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageBody(Shape):
    """One image as JSON."""

    model_config = ConfigDict(strict=True)

    # Any, here and in a batch: what is no string is refused as what is no base64, so
    # that an item has the error that it would have alone.
    image: Any = Field(
        description="The image file, base64 (RFC 4648, section 4).",
        json_schema_extra=BASE64,
    )


class BatchBody(Shape):
    """Many images as JSON."""

    model_config = ConfigDict(strict=True)

    images: list[Any] = Field(
        description="Image files, base64 each.",
        json_schema_extra={
            "items": BASE64,
            "minItems": 1,  # an empty batch is refused by name, not by its shape
        },
    )


class ModelReference(Shape):
    """Which bundle answered."""

    name: str
    version: LongVersion


class Image(Shape):
    """What was sent, upright."""

    width: int
    height: int
    format: str


class Prediction(Shape):
    """One label with its score."""

    label: str = Field(description="Name for people.")
    index: int = Field(description="Class index, from 0.")
    id: str = Field(description="Stable id of the label: a wnid, a slug.")
    score: Score = Field(description="Probability.")
    threshold: Score | None = Field(
        None, description="Score from which the label counts (binary, multilabel)."
    )


class Group(Shape):
    """A label group with the sum of its labels' scores (fine-grained)."""

    group: str
    score: Score


class Explanation(Shape):
    """Where in the image the best label was seen (class-activation map)."""

    index: int
    label: str
    grid: list[list[Score]] = Field(
        description="Rows from the top, each from the left: how much that place speaks "
        "for the label, as a share of the strongest; all 0 where none does."
    )
    region: tuple[float, float, float, float] = Field(
        description="Left, top, right and bottom of what the network saw and the grid "
        "covers, as fractions of the upright image; below 0 and over 1 where it was "
        "padded."
    )


class Answer(Shape):
    """The answer for one image. Members that do not apply to the task are absent."""

    id: str = Field(description="Request id; in a batch, with the item's position.")
    model: ModelReference
    task: Task
    image: Image
    predictions: list[Prediction] = Field(description="Best first.")
    decision: str | None = Field(None, description="The label decided on (binary).")
    abstained: bool | None = Field(
        None, description="True: the best score is under the model's abstain threshold."
    )
    groups: list[Group] | None = Field(None, description="Fine-grained only.")
    explanation: Explanation | None = Field(
        None,
        description="With `explain=true`, of the first prediction if there is one.",
    )
    warnings: list[str] = Field(description="What the sender should know of the image.")


class ProblemDetails(Shape):
    """RFC 9457 problem details."""

    type: str = Field(description="Where this code is explained.")
    title: str
    status: int
    detail: str = Field(description="What was, and what is allowed.")
    code: str = Field(description="Stable and machine-readable.")
    request_id: str


class FailedItem(Shape):
    """What stands in the place of an image that has no answer."""

    error: ProblemDetails


class BatchAnswer(Shape):
    """An answer or an error for each image, in the order sent."""

    results: list[Answer | FailedItem]
    succeeded: int
    failed: int


class Input(Shape):
    """What the network reads."""

    height: int
    width: int
    color: Color
    resize: Resize


class ModelSummary(Shape):
    """One loaded bundle."""

    name: str
    version: LongVersion
    default: bool = Field(description="Answers requests that name no model.")
    description: str
    task: Task
    labels: int = Field(description="How many.")
    input: Input
    top_k: int = Field(description="Predictions in an answer unless asked otherwise.")
    precision: str = Field(description="The graph variant that runs.")
    device: str
    explains: bool = Field(description="`explain=true` is available.")


class ModelList(Shape):
    """Everything that is loaded."""

    models: list[ModelSummary]


class ModelDetail(ModelSummary):
    """One loaded bundle, with the facts of its manifest."""

    versions: list[LongVersion] = Field(description="All loaded versions of this name.")
    manifest: dict[str, Any] = Field(
        description="The bundle's manifest: labels, thresholds, metrics, provenance."
    )


class Health(Shape):
    """The process lives, or may take traffic."""

    status: Literal["live", "ready"]
