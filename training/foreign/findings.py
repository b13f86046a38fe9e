"""graph → **findings**: what can be read off an ONNX file, and what cannot.

A finding is only what the graph leaves no doubt about. [N, 3, 224, 224] is channels
first; [N, ?, ?, ?] is not known, and whoever imports the file is asked.
"""

from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from classifier.manifest import Activation
from training.graphs.graph import GraphError, attribute, constant, producers

Layout = Literal["NCHW", "NHWC"]

IMAGE_RANK = 4
CHANNELS = (1, 3)
INPUT_TYPES = {
    int(TensorProto.FLOAT): "float32",
    int(TensorProto.FLOAT16): "float16",
    int(TensorProto.UINT8): "uint8",
}
OUTPUT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)
# A value that comes straight out of one of these is a logit: nothing bounds it.
LINEAR = frozenset({"Conv", "Gemm", "MatMul", "QGemm", "QLinearConv", "QLinearMatMul"})
# Fed to a linear layer, these may be the scores, which it only weighs or averages.
BOUNDED = frozenset({"HardSigmoid", "Sigmoid", "Softmax"})
MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
# What changes shape or type only, or takes the mean or the largest of several: of
# logits that is a logit again, and of probabilities a probability.
PASSING = MEANS | {
    "Cast",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "QuantizeLinear",
    "ReduceMax",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


@dataclass(frozen=True)
class Output:
    """One output that could be the scores: K of them for each image."""

    name: str
    classes: int | None  # K; None where the graph does not say
    activation: Activation | None  # applied inside the graph, by its last node
    logits: bool  # certainly before any activation, or the logarithm of a softmax
    log_softmax: bool  # the latter
    described: str  # shape and last operator, for a person


@dataclass(frozen=True)
class Findings:
    """What a graph says of itself."""

    input: str
    dtype: str  # float32, float16 or uint8
    dims: tuple[int | None, ...]  # four; None where dynamic
    layout: Layout | None
    shape: str  # the input, for a person
    outputs: tuple[Output, ...]


def examine(model: ModelProto) -> Findings:
    """Look at the input and the outputs.

    Raises:
        GraphError: no image input, several inputs, or no output of scores.
    """
    model = onnx.shape_inference.infer_shapes(model)
    source = _image_input(model)
    dims = _dims(source)
    dtype = INPUT_TYPES.get(int(source.type.tensor_type.elem_type))
    if dtype is None or len(dims) != IMAGE_RANK:
        raise GraphError(
            f"the input {_described(source)} is no image: four dimensions of "
            f"{', '.join(INPUT_TYPES.values())} are needed"
        )
    if None not in dims[1::2] and not {dims[1], dims[3]}.intersection(CHANNELS):
        raise GraphError(
            f"the input {_described(source)} is no image: it needs 1 or 3 channels, in "
            "the second place or the last"
        )
    return Findings(
        input=source.name,
        dtype=dtype,
        dims=tuple(dims),
        layout=_layout(dims),
        shape=_described(source),
        outputs=_outputs(model),
    )


def _image_input(model: ModelProto) -> ValueInfoProto:
    inputs = list(model.graph.input)
    if len(inputs) != 1:
        names = ", ".join(map(_described, inputs)) or "none"
        raise GraphError(
            f"the graph needs exactly one input, an image; it has: {names}"
        )
    return inputs[0]  # type: ignore[no-any-return]  # untyped protobuf


def _layout(dims: list[int | None]) -> Layout | None:
    """Known only where one place can hold the channels and the other cannot."""
    first, last = dims[1] in CHANNELS, dims[3] in CHANNELS
    if first and not last and dims[3] is not None:
        return "NCHW"
    if last and not first and dims[1] is not None:
        return "NHWC"
    # [N, 3, ?, ?] is channels first too: an image of 3 rows would be no image
    if first and dims[2] is None and dims[3] is None:
        return "NCHW"
    if last and dims[1] is None and dims[2] is None:
        return "NHWC"
    return None


def _outputs(model: ModelProto) -> tuple[Output, ...]:
    made_by = producers(model)
    found = []
    for value in model.graph.output:
        dims = _dims(value)
        long = [axis for axis, dim in enumerate(dims) if axis > 0 and dim != 1]
        scores = value.type.tensor_type.elem_type in OUTPUT_TYPES and len(long) <= 1
        # [1000] is one image's scores without N; only [N] with one score each is clear
        if not scores or not dims or (len(dims) == 1 and dims[0] not in (None, 1)):
            continue
        axis = long[0] if long else min(1, len(dims) - 1)  # of the classes
        tail = made_by.get(value.name)
        origin = _origin(model, made_by, tail)
        found.append(
            Output(
                name=value.name,
                classes=dims[axis] if long else 1,
                activation=tail and activation_of(tail, axis=axis, rank=len(dims)),
                logits=_ends_unbounded(model, made_by, origin),
                log_softmax=origin is not None and origin.op_type == "LogSoftmax",
                described=f"{_described(value)} from {tail.op_type if tail else '?'}",
            )
        )
    if not found:
        names = ", ".join(map(_described, model.graph.output))
        raise GraphError(
            f"no output is float [N, K], one number a class for each image; "
            f"there are: {names}"
        )
    return tuple(found)


def activation_of(node: NodeProto, *, axis: int, rank: int) -> Activation | None:
    """What a last node has done to the logits, if it is an activation over classes."""
    if node.op_type == "Sigmoid":
        return "sigmoid"
    if node.op_type == "Softmax":
        over = int(attribute(node, "axis", -1))  # type: ignore[call-overload]
        return "softmax" if over % rank == axis else None
    return None


def _ends_unbounded(
    model: ModelProto, made_by: dict[str, NodeProto], last: NodeProto | None
) -> bool:
    """Whether `last` is a linear layer that no activation feeds, or a LogSoftmax."""
    if last is None:
        return False
    if last.op_type == "LogSoftmax":  # logits but for a constant, which softmax undoes
        return True
    feeding = [_origin(model, made_by, made_by.get(name)) for name in last.input]
    return last.op_type in LINEAR and not any(
        node and node.op_type in BOUNDED for node in feeding
    )


def _origin(
    model: ModelProto, made_by: dict[str, NodeProto], node: NodeProto | None
) -> NodeProto | None:
    """From where the values are that `node` passes on, perhaps with a bias.

    A ReLU passes on what a mean is taken of, as SqueezeNet does; at the very end of a
    graph it is whatever its author meant by it.
    """
    averaged = False
    while node is not None:
        averaged = averaged or node.op_type in MEANS
        computed = [name for name in node.input if constant(model, name) is None]
        biased = node.op_type == "Add" and len(computed) == 1
        rectified = node.op_type == "Relu" and averaged
        if node.op_type not in PASSING and not biased and not rectified:
            break
        node = made_by.get(computed[0]) if computed else None
    return node


def _dims(value: ValueInfoProto) -> list[int | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") else None
        for dim in value.type.tensor_type.shape.dim
    ]


def _described(value: ValueInfoProto) -> str:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    dims = ", ".join("?" if dim is None else str(dim) for dim in _dims(value))
    return f"{value.name!r} {kind} [{dims}]"
