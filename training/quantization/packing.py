"""int8 graph → **the same answers to the bit, sooner**: four pixels are read at once.

A first convolution reads three channels. For each place, ONNX Runtime copies what it
sees, three bytes at a time, and its kernels want a multiple of four inputs: with 27 of
them they take more than twice as long as with 28. But [N, H, W, 3] are the same bytes
as [N, H, W / 4, 12]. The convolution is written for these: its outputs come side by
side as channels, [N, h, w / 2, 2 * O] for a stride of two, which are the same bytes as
[N, h, w, O] again, and its filters get zeros where they see too much.
"""

from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from classifier.session import INPUT
from training.graphs.graph import (
    add_constant,
    add_node,
    attribute,
    constant,
    consumers,
    drop_unused,
    parse,
    producers,
    rewire,
    serialize,
    sort_nodes,
)
from training.quantization.layers import (
    CUTS,
    dequantized,
    groups,
    integers,
    only_reader,
    set_attributes,
)
from training.quantization.pixels import TO_CHANNELS_FIRST, input_shape

TO_CHANNELS_LAST = [0, 2, 3, 1]
TOGETHER = 4  # pixels, and what the kernels want a multiple of


class First(NamedTuple):
    """The way from the pixels through the first convolution to 8 bits again."""

    transpose: NodeProto  # of the pixels, to [N, C, H, W]
    conv: NodeProto
    constants: tuple[NodeProto, NodeProto]  # what dequantizes its weight and bias
    quantize: NodeProto  # its outputs


class Columns(NamedTuple):
    """Where along a row a filter finds its pixels, in packs of `TOGETHER`."""

    outputs: int  # side by side, for each pack
    first: int  # pack, relative to the outputs' own
    packs: int  # that the filter sees
    pack: NDArray[np.int64]  # of each output and tap, from the first on, [outputs, k]
    place: NDArray[np.int64]  # in this pack


def pack_pixels(int8: bytes) -> bytes:
    """Let the first convolution read packs of pixels; else the graph as it is.

    That is where it reads the pixels as they are or normalized in rows (`pixels.py`),
    their channels are no multiple of four, and its padding makes as many outputs as
    strides fit into a row.
    """
    model = parse(int8)
    first = find_first(model)
    if first is None:
        return int8
    height, width, channels = input_shape(model)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weight = values[first.constants[0].input[0]]
    columns = find_columns(first.conv, width, weight.shape[3])
    if columns is None or channels % TOGETHER == 0:
        return int8
    _replace_weights(model, first, columns, values)
    shape = np.array([0, height, width // TOGETHER, TOGETHER * channels])
    packed = add_constant(model, "packs_shape", shape)
    pixels = first.transpose.input[0]
    first.transpose.input[0] = add_node(
        model, "Reshape", [pixels, packed], "pixels_in_packs"
    )
    _unpack_outputs(model, first, filters=weight.shape[0])
    sort_nodes(model)
    drop_unused(model)
    return serialize(model)


def find_first(model: onnx.ModelProto) -> First | None:
    """The first layer, if it reads the pixels in 8 bits, alone, and gives 8 bits."""
    conv = next((n for n in model.graph.node if n.op_type == "Conv"), None)
    if conv is None:
        return None
    constants = {tensor.name for tensor in model.graph.initializer}
    transpose = _transposed(model, conv)
    sources = dequantized(conv, producers(model), constants)
    quantize = only_reader(model, conv.output[0], past=CUTS)
    if transpose is None or sources is None or quantize is None:
        return None
    if quantize.op_type != "QuantizeLinear":
        return None
    return First(transpose, conv, sources, quantize)


def _transposed(model: onnx.ModelProto, conv: NodeProto) -> NodeProto | None:
    """The Transpose of the pixels, [N, H, W, C], that a convolution reads in 8 bits.

    They may be normalized in front of it, in rows, and rounded behind it.
    """
    made_by = producers(model)
    tensor, way = conv.input[0], []
    for operator in ("DequantizeLinear", "QuantizeLinear", "Transpose"):
        node = made_by.get(tensor)
        if node is not None and node.op_type == operator:
            way.append(node)
            tensor = node.input[0]
        elif operator != "QuantizeLinear":  # bytes that nothing was done to are 8 bits
            return None
    alone = all(only_reader(model, node.output[0]) for node in way)
    if not alone or attribute(way[-1], "perm") != TO_CHANNELS_FIRST:
        return None
    rows = made_by.get(tensor)
    if rows is None:
        return way[-1] if tensor == INPUT else None
    shape = constant(model, rows.input[1]) if rows.op_type == "Reshape" else None
    whole = shape is not None and shape.tolist() == [0, *input_shape(model)]
    return way[-1] if whole else None


def find_columns(conv: NodeProto, width: int, taps: int) -> Columns | None:
    """How a convolution sees rows of packs; None where they do not fit."""
    _, stride = integers(conv, "strides", [1, 1])
    _, dilation = integers(conv, "dilations", [1, 1])
    _, left, _, right = integers(conv, "pads", [0, 0, 0, 0])
    plain = attribute(conv, "auto_pad", b"NOTSET") == b"NOTSET"
    if not plain or dilation != 1 or groups(conv) != 1:
        return None
    made = (width + left + right - taps) // stride + 1
    if TOGETHER % stride or width % TOGETHER or made * stride != width:
        return None
    outputs = TOGETHER // stride
    # pixel that each output of a pack sees with each tap, from the pack's first on
    seen = stride * np.arange(outputs)[:, None] + np.arange(taps) - left
    pack, place = np.divmod(seen, TOGETHER)
    if pack.max() < 0:  # nothing but padding
        return None
    first = int(pack.min())
    return Columns(outputs, first, int(pack.max()) - first + 1, pack - first, place)


def _replace_weights(
    model: onnx.ModelProto,
    first: First,
    columns: Columns,
    values: dict[str, NDArray[np.generic]],
) -> None:
    """Filters over packs, one after the other for each output of a pack."""
    weight = values[first.constants[0].input[0]]
    filters, channels, rows, _ = weight.shape
    shape = (columns.outputs, filters, TOGETHER, channels, rows, columns.packs)
    wide = np.zeros(shape, weight.dtype)
    for (output, tap), pack in np.ndenumerate(columns.pack):
        place = columns.place[output, tap]
        wide[output, :, place, :, :, pack] = weight[:, :, :, tap]
    wide = wide.reshape(
        columns.outputs * filters, TOGETHER * channels, rows, columns.packs
    )
    for node in first.constants:
        for position, name in enumerate(node.input):
            value = values[name]
            if value is weight:
                new = wide
            elif value.shape == (filters,):  # scales, zeros and biases of the filters
                new = np.tile(value, columns.outputs)
            else:
                continue
            node.input[position] = add_constant(model, f"{name}_packed", new)
    down, _ = integers(first.conv, "strides", [1, 1])
    top, _, bottom, _ = integers(first.conv, "pads", [0, 0, 0, 0])
    set_attributes(
        first.conv,
        strides=[down, 1],
        kernel_shape=[rows, columns.packs],
        pads=[top, -columns.first, bottom, columns.first + columns.packs - 1],
    )


def _unpack_outputs(model: onnx.ModelProto, first: First, *, filters: int) -> None:
    """[N, h, w / n, n * O] → [N, h, w, O], for n outputs of a pack: the same bytes."""
    packed = first.quantize.output[0]
    readers = consumers(model).get(packed, [])
    shape = add_constant(model, "outputs_shape", np.array([0, 0, -1, filters]))
    last = add_node(model, "Transpose", [packed], "packs_last", perm=TO_CHANNELS_LAST)
    flat = add_node(model, "Reshape", [last, shape], "outputs_in_rows")
    back = add_node(model, "Transpose", [flat], "outputs", perm=TO_CHANNELS_FIRST)
    rewire(readers, packed, back)
    del model.graph.value_info[:]  # the shapes of before
