"""int8 graph → **the same answers, sooner**: pixels are 8 bits already.

The first nodes of a graph turn bytes into normalized floats, and the next one turns
these into bytes again. Where one step of the second is one step of the first (one mean
and one std for all channels, as good as always for gray images), the pixels go straight
into the first layer. Else they are normalized in rows of W * C values: ONNX Runtime
moves the change of layout behind quantized layers, and subtracting three means from
[N, H, W, 3] then costs more than a convolution does.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from classifier.session import INPUT
from training.graphs.graph import (
    add_constant,
    add_node,
    attribute,
    consumers,
    drop_unused,
    rewire,
)
from training.quantization.layers import only_reader

TO_CHANNELS_FIRST = [0, 3, 1, 2]
PIXEL_VALUES = 256

Floats = NDArray[np.float32]
ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "Add": np.add,
    "Div": np.divide,
    "Mul": np.multiply,
    "Sub": np.subtract,
}


class Normalization(NamedTuple):
    """The nodes from the pixels to the first layer: layout, type, arithmetic."""

    transpose: NodeProto
    cast: NodeProto
    arithmetic: list[NodeProto]  # each with a constant for its second input
    constants: list[Floats]  # of these nodes, one number a channel, [C]

    @property
    def output(self) -> str:
        """The tensor of normalized pixels, float32 [N, C, H, W]."""
        name: str = [self.cast, *self.arithmetic][-1].output[0]
        return name

    def table(self) -> Floats:
        """What each of the 256 pixel values becomes, float32 [256, C]."""
        channels = len(self.constants[0]) if self.constants else 1
        values = np.arange(PIXEL_VALUES, dtype=np.float32)[:, None].repeat(
            channels, axis=1
        )
        for node, constant in zip(self.arithmetic, self.constants, strict=True):
            values = ARITHMETIC[node.op_type](values, constant)
        return values


def find_normalization(model: onnx.ModelProto) -> Normalization | None:
    """The graph's first nodes; None where they are others than those of export.

    Import adds the same to a network that reads [N, C, H, W]. Where it reverses the
    channels or keeps them last there is no short way.
    """
    values = {t.name: t for t in model.graph.initializer}
    channels = input_shape(model)[-1]
    transpose = only_reader(model, INPUT)
    if (
        transpose is None
        or transpose.op_type != "Transpose"
        or attribute(transpose, "perm") != TO_CHANNELS_FIRST
    ):
        return None
    cast = only_reader(model, transpose.output[0])
    if (
        cast is None
        or cast.op_type != "Cast"
        or attribute(cast, "to") != onnx.TensorProto.FLOAT
    ):
        return None
    arithmetic, constants = [], []
    node = only_reader(model, cast.output[0])
    while node is not None and node.op_type in ARITHMETIC:
        tensor = values.get(node.input[1])
        constant = None if tensor is None else _by_channel(tensor, channels)
        if constant is None:
            break
        arithmetic.append(node)
        constants.append(constant)
        node = only_reader(model, node.output[0])
    return Normalization(transpose, cast, arithmetic, constants)


def pixel_range(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """The range of the normalized pixels: it is known, whatever images were seen.

    Pixels that nothing is done to reach from 0 to 255.
    """
    found = find_normalization(model)
    if found is None:
        return {}
    table = found.table()
    return {found.output: (min(0.0, float(table.min())), max(0.0, float(table.max())))}


def feed_pixels(model: onnx.ModelProto) -> None:
    """Shorten the way of the pixels into a quantized first layer, in place, unsorted.

    The logits stay the same to the bit. A first layer in fp32 is left as it is: it
    reads channels first, and there the arithmetic is fast.
    """
    found = find_normalization(model)
    if found is None:
        return
    quantizers = consumers(model).get(found.output, [])
    if not quantizers or any(n.op_type != "QuantizeLinear" for n in quantizers):
        return
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    if all(_gives_back_pixels(found, node, values) for node in quantizers):
        for node in quantizers:
            rewire(model.graph.node, node.output[0], found.transpose.output[0])
        drop_unused(model)
    elif found.arithmetic:
        _normalize_in_rows(model, found)


def _gives_back_pixels(
    found: Normalization, node: NodeProto, values: dict[str, NDArray[np.generic]]
) -> bool:
    """Whether the 8 bits of each normalized pixel are those of the pixel."""
    scale, zero = (values[name] for name in node.input[1:3])
    if scale.size != 1 or zero.dtype != np.uint8:
        return False
    levels = np.round(found.table() / scale.astype(np.float32)) + zero.astype(np.int64)
    return bool((levels == np.arange(PIXEL_VALUES)[:, None]).all())


def _normalize_in_rows(model: onnx.ModelProto, found: Normalization) -> None:
    """Normalize [N, H, W * C] instead of [N, C, H, W]: the same sums, in long runs."""
    height, width, channels = input_shape(model)
    output = found.output
    for node in (found.transpose, found.cast, *found.arithmetic):
        model.graph.node.remove(node)
    flat = add_constant(model, "rows_shape", np.array([0, height, width * channels]))
    tensor = add_node(model, "Cast", [INPUT], "pixels_float", to=onnx.TensorProto.FLOAT)
    tensor = add_node(model, "Reshape", [tensor, flat], "pixel_rows")
    for node, value in zip(found.arithmetic, found.constants, strict=True):
        tiled = add_constant(model, f"{node.name}_row", np.tile(value, width))
        tensor = add_node(model, node.op_type, [tensor, tiled], f"{node.name}_rows")
    square = add_constant(model, "pixels_shape", np.array([0, height, width, channels]))
    tensor = add_node(model, "Reshape", [tensor, square], "pixels_normalized")
    last = helper.make_node(
        "Transpose", [tensor], [output], name=output, perm=TO_CHANNELS_FIRST
    )
    model.graph.node.append(last)
    drop_unused(model)


def input_shape(model: onnx.ModelProto) -> tuple[int, int, int]:
    """(H, W, C) of the pixels."""
    (pixels,) = (i for i in model.graph.input if i.name == INPUT)
    _, height, width, channels = (
        dim.dim_value for dim in pixels.type.tensor_type.shape.dim
    )
    return height, width, channels


def _by_channel(tensor: onnx.TensorProto, channels: int) -> Floats | None:
    """A constant that broadcasts over [N, C, H, W] as one number a channel, [C]."""
    value = numpy_helper.to_array(tensor)
    if value.dtype != np.float32:
        return None
    if value.size == 1:
        return value.ravel().repeat(channels)
    if value.size == channels and value.shape[-3:] == (channels, 1, 1):
        return value.ravel()
    return None
