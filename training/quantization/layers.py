"""node → **what several stages ask of a layer**: its reader, constants, attributes."""

from collections.abc import Container, Mapping

import onnx
from onnx import NodeProto, helper, numpy_helper

from training.graphs.graph import add_constant, attribute, consumers
from training.quantization.ends import WEIGHTED

# Activations that leave a value as it is, or cut it.
CUTS = frozenset({"Clip", "Relu"})


def only_reader(
    model: onnx.ModelProto, tensor: str, *, past: Container[str] = ()
) -> NodeProto | None:
    """The node that alone reads a tensor which is no output.

    Operators in `past` are passed over: it is the first behind them.
    """
    read_by = consumers(model)
    outputs = {output.name for output in model.graph.output}
    while True:
        readers = read_by.get(tensor, [])
        if len(readers) != 1 or tensor in outputs:
            return None
        if readers[0].op_type not in past:
            return readers[0]
        tensor = readers[0].output[0]


def is_biased_conv(node: NodeProto, constants: Container[str]) -> bool:
    """Whether this is a convolution with constant weight and bias."""
    known = [name in constants for name in node.input[1:]]
    return node.op_type == "Conv" and known == [True, True]


def dequantized(
    node: NodeProto, made_by: Mapping[str, NodeProto], constants: Container[str]
) -> tuple[NodeProto, NodeProto] | None:
    """What makes weight and bias of a layer of constant integers; None elsewhere."""
    found = [made_by.get(name) for name in node.input[1:]]
    known = [
        source
        for source in found
        if source is not None
        and source.op_type == "DequantizeLinear"
        and all(name in constants for name in source.input)
    ]
    return (known[0], known[1]) if len(known) == len(found) == 2 else None  # noqa: PLR2004  weight and bias


def groups(node: NodeProto) -> int:
    """Into how many groups a convolution splits its channels."""
    return int(attribute(node, "group", 1))  # type: ignore[call-overload,no-any-return]


def is_quantizable(node: NodeProto) -> bool:
    """Whether ONNX Runtime can give a layer a step for each output.

    Of a transposed convolution in groups it looks at the wrong axis, and gives up.
    """
    return node.op_type != "ConvTranspose" or groups(node) == 1


def part_weights(model: onnx.ModelProto) -> None:
    """Give layers that read one weight along different axes one each, in place.

    Their steps are along one axis, that of the outputs of the first that has it.
    """
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    first: dict[str, tuple[bool, bool]] = {}  # weight → how its outputs lie
    for node in model.graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in values:
            continue
        lies = (
            node.op_type in ("ConvTranspose", "MatMul"),
            bool(attribute(node, "transB", 0)),
        )
        name = node.input[1]
        if first.setdefault(name, lies) != lies:
            value = numpy_helper.to_array(values[name])
            node.input[1] = add_constant(model, f"{name}_{node.op_type}", value)


def integers(node: NodeProto, name: str, default: list[int]) -> list[int]:
    """An attribute that is a list of integers, such as strides or pads."""
    return [int(i) for i in attribute(node, name, default)]  # type: ignore[attr-defined]


def set_attributes(node: NodeProto, **values: int | list[int]) -> None:
    """Give a node these attributes, whether it had them or not."""
    for field in [f for f in node.attribute if f.name in values]:
        node.attribute.remove(field)
    for name, value in values.items():
        node.attribute.append(helper.make_attribute(name, value))
