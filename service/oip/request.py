"""body → **inference**: images or pixels, and the outputs that are wanted of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.types import Scope

from classifier.preprocess import Pixels
from service.errors import (
    EmptyBodyError,
    MalformedRequestError,
    TooManyImagesError,
    cut,
    shown,
)
from service.images import first_fault
from service.oip.shapes import (
    InferenceRequest,
    InputParameters,
    OutputParameters,
    RequestInput,
    RequestOutput,
    RequestParameters,
)
from service.oip.tensors import (
    read_base64,
    read_numbers,
    unpack_bytes,
    unpack_pixels,
)

LENGTH = "Inference-Header-Content-Length"
LENGTH_HEADER = LENGTH.lower().encode()
RAW_BINARY = 0  # what it says if there is no JSON: the body is one image

IMAGE, PIXELS = "image", "pixels"
DATATYPES = {IMAGE: "BYTES", PIXELS: "UINT8"}
SCORES, LOGITS = OUTPUTS = ("scores", "logits")

# Numbers, texts, lists and objects of a request's JSON. Each costs far more memory than
# its characters, and all of them are parsed in one go, while nothing else runs.
MAX_VALUES = 2**19
MAX_DIGITS = 12  # of a length


@dataclass(frozen=True, slots=True)
class Output:
    """An output that is wanted, and how."""

    name: str
    binary: bool
    classes: int | None = None  # only so many best, as texts


@dataclass(frozen=True, slots=True)
class Inference:
    """What a request asks: `images`, or where there are none, `pixels`."""

    images: Sequence[bytes]
    pixels: Sequence[Pixels]  # uint8 [H, W, C] each
    outputs: Sequence[Output]
    id: str | None = None
    timeout_us: int | None = None

    @property
    def count(self) -> int:
        """N."""
        return len(self.images) or len(self.pixels)


def header_bytes_of(scope: Scope) -> int | None:
    """Bytes of the JSON before binary tensors; None: the whole body is JSON.

    Raises:
        MalformedRequestError: the header is no number.
    """
    for name, value in scope["headers"]:
        if name == LENGTH_HEADER:
            told = value.strip()
            if not told.isdigit() or len(told) > MAX_DIGITS:
                raise MalformedRequestError(
                    f"{LENGTH} is "
                    f"{shown(str(told, 'latin-1'))}; a number of bytes is needed"
                )
            return int(told)
    return None


def read_inference(
    body: bytes,
    header_bytes: int | None,
    *,
    shape: tuple[int, int, int],
    max_items: int,
) -> Inference:
    """Read the body of a request; `shape` is (H, W, C) of the model's pixels.

    Raises:
        MalformedRequestError: it is not what the protocol or this model takes.
        EmptyBodyError, TooManyImagesError
    """
    if header_bytes == RAW_BINARY:
        return Inference([body], [], _all_outputs(binary=True))
    if header_bytes is not None and header_bytes > len(body):
        raise MalformedRequestError(
            f"{LENGTH} is {header_bytes}; the body has only {len(body)} bytes"
        )
    asked = _document(body[:header_bytes])
    tensor = _only_input(asked.inputs)
    binary = memoryview(body)[header_bytes:] if header_bytes is not None else None
    data = _binary_data(tensor, binary)
    count = _count(tensor.shape, max_items)
    images, pixels = _content(tensor, data, (count, *shape))
    parameters = asked.parameters or RequestParameters()
    return Inference(
        images,
        pixels,
        _outputs(asked.outputs, binary=parameters.binary_data_output),
        asked.id,
        parameters.timeout or None,  # 0 is Triton's word for none
    )


def _document(text: bytes) -> InferenceRequest:
    values = text.count(b",") + text.count(b"[") + text.count(b"{")
    if values > MAX_VALUES:
        raise MalformedRequestError(
            f"the JSON has more than {MAX_VALUES} values; send the tensor as binary "
            "data, or fewer images"
        )
    try:
        return InferenceRequest.model_validate_json(text)
    except ValidationError as error:
        where, fault = first_fault(error)
        if where is None:
            raise MalformedRequestError(f"the request is not JSON: {fault}") from error
        raise MalformedRequestError(f"{where or 'the request'}: {fault}") from error


def _only_input(inputs: Sequence[RequestInput]) -> RequestInput:
    names = [tensor.name for tensor in inputs[:3]]
    if len(inputs) != 1 or names[0] not in DATATYPES:
        raise MalformedRequestError(
            f"the inputs are {shown(', '.join(names))}; one is needed: {IMAGE} "
            f"(BYTES, encoded files) or {PIXELS} (UINT8, preprocessed)"
        )
    (tensor,) = inputs
    if tensor.datatype != DATATYPES[tensor.name]:
        raise MalformedRequestError(
            f"{tensor.name} has datatype {shown(tensor.datatype)}; "
            f"{DATATYPES[tensor.name]} is needed"
        )
    return tensor


def _binary_data(tensor: RequestInput, binary: memoryview | None) -> memoryview | None:
    """The tensor's bytes behind the JSON; None if its data is in the JSON."""
    parameters = tensor.parameters or InputParameters()
    if parameters.shared_memory_region is not None:
        raise MalformedRequestError(f"{tensor.name} is in shared memory; send its data")
    size, inside = parameters.binary_data_size, tensor.data is not None
    if (size is None) != inside:
        raise MalformedRequestError(
            f"{tensor.name} needs either data or the parameter binary_data_size"
        )
    there = 0 if binary is None else len(binary)
    if there != (size or 0):
        raise MalformedRequestError(
            f"{there} bytes follow the JSON, as {LENGTH} says; "
            f"binary_data_size is {size or 0}"
        )
    return None if inside else binary or memoryview(b"")


def _content(
    tensor: RequestInput, data: memoryview | None, shape: tuple[int, int, int, int]
) -> tuple[Sequence[bytes], Sequence[Pixels]]:
    """Its images or its pixels; `shape` is (N, H, W, C)."""
    count = shape[0]
    if tensor.name == IMAGE:
        _check_shape(tensor, [count])
        if data is None:
            return read_base64(tensor.data, count), []
        return unpack_bytes(data, count), []
    _check_shape(tensor, list(shape))
    if data is None:
        return [], list(read_numbers(tensor.data, shape))
    return [], list(unpack_pixels(data, shape))


def _count(shape: Sequence[int], max_items: int) -> int:
    """N, which every input begins with."""
    count = shape[0] if shape else 0
    if count < 1:
        raise EmptyBodyError(f"the shape is {cut(str(shape))}; there is no image")
    if count > max_items:
        raise TooManyImagesError(
            f"the request has {cut(str(count))} images; at most {max_items} are "
            "accepted"
        )
    return count


def _check_shape(tensor: RequestInput, needed: Sequence[int]) -> None:
    if tensor.shape != needed:
        raise MalformedRequestError(
            f"{tensor.name} has shape {cut(str(tensor.shape))}; this model takes "
            f"[{', '.join(['N', *map(str, needed[1:])])}]"
        )


def _outputs(
    wanted: Sequence[RequestOutput] | None, *, binary: bool
) -> Sequence[Output]:
    if not wanted:
        return _all_outputs(binary=binary)
    outputs: dict[str, Output] = {}
    for output in wanted:
        if output.name not in OUTPUTS or output.name in outputs:
            raise MalformedRequestError(
                f"output {shown(output.name)} is unknown or asked for twice; there "
                f"are {' and '.join(OUTPUTS)}"
            )
        parameters = output.parameters or OutputParameters()
        if parameters.shared_memory_region is not None:
            raise MalformedRequestError(
                f"{output.name} shall go to shared memory; take it from the response"
            )
        own = parameters.binary_data
        outputs[output.name] = Output(
            output.name,
            binary if own is None else own,
            parameters.classification or None,
        )
    return list(outputs.values())


def _all_outputs(*, binary: bool) -> Sequence[Output]:
    return [Output(name, binary) for name in OUTPUTS]
