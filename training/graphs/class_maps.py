"""graph → **graph that can say where it looked**: class-activation maps.

Zhou et al., arXiv:1512.04150: with global average pooling and a linear head, logit k
is the mean over the image of Σ_c W[k, c] · features[c, h, w], plus a bias. What is
averaged is the map of class k. The output `class_maps`, float32 [N, K, h, w], shares
the weights of the head, so the file does not grow. ONNX Runtime computes it only when
it is asked for, given the run option `only_execute_path_to_fetches`.
"""

from typing import NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from classifier.session import CLASS_MAPS, OUTPUT
from training.graphs.graph import (
    add_constant,
    add_node,
    attribute,
    constant,
    drop_unused,
    parse,
    producers,
    serialize,
)

# What may stand between pooling and head without changing a value's meaning.
TRANSPARENT = frozenset(
    {
        "Cast",
        "DequantizeLinear",
        "Dropout",
        "Flatten",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Squeeze",
    }
)
SPATIAL_AXES = ({2, 3}, {-2, -1})


class Head(NamedTuple):
    """The linear layer after global average pooling."""

    weight: str  # tensor [K, C], or [C, K] where `transposed`
    transposed: bool
    features: str  # tensor [N, C, h, w] before the pooling
    shape: tuple[int, int]  # h, w


def add_class_maps(graph: bytes) -> bytes:
    """The graph with the output `class_maps`.

    Unchanged where it has that already, or no such head. In an fp16 graph the head is
    not found: call this before the conversion.
    """
    model = parse(graph)
    if CLASS_MAPS in [output.name for output in model.graph.output]:
        return graph
    head = find_head(onnx.shape_inference.infer_shapes(model))
    if head is None:
        return graph
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    weight = head.weight
    if head.transposed:
        weight = add_node(model, "Transpose", [weight], "head_weight", perm=[1, 0])
    flat = add_constant(model, "flat_shape", np.array([0, 0, -1]))
    columns = add_node(model, "Reshape", [head.features, flat], "features_flat")
    # [N, K, h * w]
    rows = add_node(model, "MatMul", [weight, columns], "class_maps_flat")
    grid = add_constant(model, "grid_shape", np.array([0, 0, *head.shape]))
    reshape = helper.make_node("Reshape", [rows, grid], [CLASS_MAPS], name=CLASS_MAPS)
    model.graph.node.append(reshape)
    shape = ["N", classes, *head.shape]
    output = helper.make_tensor_value_info(CLASS_MAPS, TensorProto.FLOAT, shape)
    model.graph.output.append(output)
    return serialize(model)


def drop_class_maps(graph: bytes) -> bytes:
    """The graph without the output `class_maps`; unchanged where it has none.

    Quantization would take the product of the maps for a layer of the network.
    """
    model = parse(graph)
    outputs = [output.name for output in model.graph.output]
    if CLASS_MAPS not in outputs:
        return graph
    model.graph.output.pop(outputs.index(CLASS_MAPS))
    drop_unused(model)
    return serialize(model)


def find_head(model: ModelProto) -> Head | None:
    """Walk back from the logits; None unless it is pooling → flatten → linear.

    Needs inferred shapes.
    """
    made_by = producers(model)
    node = made_by.get(OUTPUT)
    while node is not None and node.op_type in TRANSPARENT:
        node = made_by.get(node.input[0])
    if node is not None and node.op_type == "Add":  # the bias of a MatMul
        summands = [name for name in node.input if constant(model, name) is None]
        node = made_by.get(summands[0]) if len(summands) == 1 else None
    if node is None or not _is_linear(node):
        return None
    pool = made_by.get(node.input[0])
    while pool is not None and pool.op_type in TRANSPARENT:
        pool = made_by.get(pool.input[0])
    if pool is None or not _is_global_average(model, pool):
        return None
    found = _shape(model, pool.input[0])
    if found is None:
        return None
    channels, height, width = found
    transposed = not attribute(node, "transB", 0)
    weight = _dims(model, node.input[1])
    if len(weight) == 2 and weight[0 if transposed else 1] != channels:  # noqa: PLR2004
        return None  # a Reshape in between has put several images into one
    return Head(node.input[1], transposed, pool.input[0], (height, width))


def _is_linear(node: NodeProto) -> bool:
    if node.op_type == "MatMul":
        return True
    plain = attribute(node, "alpha", 1.0) == 1.0 and not attribute(node, "transA", 0)
    return node.op_type == "Gemm" and plain


def _is_global_average(model: ModelProto, node: NodeProto) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    axes = attribute(node, "axes")  # an attribute until opset 17, an input since 18
    if axes is None and len(node.input) > 1:
        axes = constant(model, node.input[1])
    return axes is not None and set(np.asarray(axes).tolist()) in SPATIAL_AXES


def _shape(model: ModelProto, name: str) -> tuple[int, int, int] | None:
    """(C, h, w) of a float32 tensor [N, C, h, w]; None where they are not fixed."""
    for info in model.graph.value_info:
        kind, dims = info.type.tensor_type.elem_type, info.type.tensor_type.shape.dim
        fits = kind == TensorProto.FLOAT and len(dims) == 4  # noqa: PLR2004
        if info.name == name and fits:
            channels, h, w = (dim.dim_value for dim in dims[1:])
            return (channels, h, w) if channels and h and w else None
    return None


def _dims(model: ModelProto, name: str) -> list[int]:
    """The shape of a constant, or of what is made of one; empty where it is unknown."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return list(tensor.dims)
    for info in model.graph.value_info:
        if info.name == name:
            return [dim.dim_value for dim in info.type.tensor_type.shape.dim]
    return []
