"""body ⇄ **JSON** of the Open Inference Protocol, as OpenAPI shows it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.shapes import Shape

MAX_ID = 1024  # characters; the answer repeats it
# Tensors of a list; more than there are, so that what is wrong with them can be told.
# Room for half a million objects, validated in one go, was room for a second.
MAX_TENSORS = 16

Size = Annotated[int, Field(ge=0, lt=2**63)]  # int64 of the protocol's parameters


class Asked(BaseModel):
    """Of a request. Members that are not known here are for other servers.

    Lists are `fail_fast`: half a million wrong elements would be as many errors, built
    in one go, of which only the first is told.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class InputParameters(Asked):
    """Where the data of an input is."""

    binary_data_size: Size | None = Field(
        None, description="Bytes of this tensor behind the JSON."
    )
    shared_memory_region: Any = Field(None, description="Refused.")


class RequestInput(Asked):
    """The images: `image`, BYTES [N], or `pixels`, UINT8 [N, H, W, C]."""

    name: str
    datatype: str
    shape: list[int] = Field(fail_fast=True)
    parameters: InputParameters | None = None
    # Any: bounded and read in service/oip/tensors.py, without a validator a number
    data: Any = Field(
        None,
        description="Flat or nested; of `image` base64 texts. Absent if it is binary.",
    )


class OutputParameters(Asked):
    """How an output is wanted."""

    binary_data: bool | None = Field(
        None, description="Behind the JSON, or in it. Unset: `binary_data_output`."
    )
    classification: Size | None = Field(
        None, description="Only so many best, as texts `value:index:label`."
    )
    shared_memory_region: Any = Field(None, description="Refused.")


class RequestOutput(Asked):
    """An output that is wanted: `scores` or `logits`."""

    name: str
    parameters: OutputParameters | None = None


class RequestParameters(Asked):
    """Of a request as a whole; others, such as `priority`, change nothing."""

    binary_data_output: bool = Field(
        False,
        description="Whether outputs are binary that do not say so themselves. "
        "Unset: false.",
    )
    timeout: Size | None = Field(
        None, description="Microseconds; shortens LINNAEUS_REQUEST_TIMEOUT_MS."
    )


class InferenceRequest(Asked):
    """The JSON of an inference request."""

    id: str | None = Field(None, max_length=MAX_ID)
    parameters: RequestParameters | None = None
    inputs: list[RequestInput] = Field(
        min_length=1, max_length=MAX_TENSORS, fail_fast=True
    )
    outputs: list[RequestOutput] | None = Field(
        None,
        max_length=MAX_TENSORS,
        fail_fast=True,
        description="Unset or empty: all.",
    )


class BinarySize(Shape):
    """Where the data of an output is."""

    binary_data_size: int


class ResponseOutput(Shape):
    """One output; its data is in `data`, or behind the JSON in the order of outputs."""

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]
    parameters: BinarySize | None = None
    data: list[float] | list[str] | None = None


class InferenceResponse(Shape):
    """The JSON of an inference response."""

    model_name: str
    model_version: str
    id: str | None = Field(None, description="That of the request, if it had one.")
    outputs: list[ResponseOutput]


class OipError(Shape):
    """Every error below `/v2`."""

    error: str


class ServerMetadata(Shape):
    """Who answers."""

    name: str
    version: str
    extensions: list[str] = Field(description="Those of Triton's that are all here.")


class ServerLive(Shape):
    """The process lives."""

    # Like the others only ever true, but the client that openapi-generator makes of
    # such a constant for Python takes no boolean.
    live: bool


class ServerReady(ServerLive):
    """Traffic may come."""

    ready: bool


class ModelReady(Shape):
    """The model may be asked."""

    name: str
    ready: bool


class TensorMetadata(Shape):
    """An input or an output; -1 is the number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Shape):
    """The tensors of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata] = Field(description="A request has one of them.")
    outputs: list[TensorMetadata]


class ConfigInput(Shape):
    """An input; its shape without the number of images."""

    name: str
    data_type: str
    format: str
    dims: list[int]
    optional: bool


class ConfigOutput(Shape):
    """An output; its shape without the number of images."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(Shape):
    """A model as Triton would describe it."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigInput]
    output: list[ConfigOutput]
    dynamic_batching: dict[str, int]


class IndexEntry(Shape):
    """A version of a model that is loaded."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str
