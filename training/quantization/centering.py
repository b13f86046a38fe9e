"""fp32 graph + real images → **the same answers, channels around zero**.

All channels of a tensor share one range. Of two that lie in -40..10 and in -10..40, it
has to span 80 where 50 would do, and each of its 256 levels is that much coarser. Where
only unpadded convolutions and sums read a tensor, any number may be taken off one of
its channels: the layer that writes it loses it in its bias, and those that read it get
it back in theirs. What is taken is the middle of what was seen. It costs nothing when
serving. Channel-wise shifting of Wei et al., arXiv:2304.09145; the bottlenecks of
MobileNet's kind have such tensors.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from training.graphs.graph import add_constant, attribute, consumers, drop_unused
from training.quantization.layers import groups, integers, is_biased_conv
from training.quantization.ranges import small_pieces, watch

Floats = NDArray[np.float32]

RANK = 4  # of [N, C, H, W]


def center_channels(
    model: onnx.ModelProto, batches: Iterable[NDArray[np.uint8]]
) -> None:
    """Move the channels of the tensors that allow it, in place; the logits stay.

    `batches` are pixels, uint8 [N, H, W, C].

    Raises:
        GraphError: the graph does not run.
    """
    tensors = movable_tensors(model)
    written = [n.output[0] for n in model.graph.node if n.op_type == "Conv"]
    middles = find_middles(model, [t for t in written if t in tensors], batches)
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    read_by = consumers(model)
    moved: dict[str, Floats] = {}  # tensor → what was taken off its channels, [C]
    for node in model.graph.node:  # in order of computation, as ONNX demands
        output = node.output[0]
        if output in middles:
            moved[output] = middles[output]
            _add_to_bias(model, values, node, -middles[output])
        elif output in tensors and not moved.keys().isdisjoint(node.input):
            summands = [moved[name] for name in node.input if name in moved]
            moved[output] = np.sum(summands, axis=0)
        else:
            continue
        for reader in read_by.get(output, ()):
            if reader.op_type == "Conv":
                weight = numpy_helper.to_array(values[reader.input[1]])
                summed = weight.reshape(*weight.shape[:2], -1).sum(axis=2)  # [O, C]
                _add_to_bias(model, values, reader, summed @ moved[output])
    drop_unused(model)


def movable_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """What convolutions and sums write and only unpadded convolutions and sums read."""
    constants = {tensor.name for tensor in model.graph.initializer}
    outputs = {output.name for output in model.graph.output}
    read_by = consumers(model)
    channels = {
        info.name: info.type.tensor_type.shape.dim[1].dim_value
        for info in model.graph.value_info
        if len(info.type.tensor_type.shape.dim) == RANK
    }
    found = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Add" or is_biased_conv(node, constants)
    } - outputs

    def gives_back(tensor: str, reader: NodeProto) -> bool:
        if reader.op_type == "Add":  # what is added to must have a channel for each
            total = reader.output[0]
            alike = channels.get(tensor, 0) == channels.get(total) != 0
            return total in found and alike and constants.isdisjoint(reader.input)
        return (
            is_biased_conv(reader, constants)
            and groups(reader) == 1
            and not _is_padded(reader)
        )

    # a sum that has to stay where it is holds its summands there
    while stuck := {
        tensor
        for tensor in found
        if not all(gives_back(tensor, reader) for reader in read_by.get(tensor, ()))
    }:
        found -= stuck
    return frozenset(found)


def find_middles(
    model: onnx.ModelProto, names: list[str], batches: Iterable[NDArray[np.uint8]]
) -> dict[str, Floats]:
    """Tensor → the middle between the lowest and the highest of each channel, [C]."""
    if not names:  # asked for no tensor, ONNX Runtime returns them all
        return {}
    lowest: dict[str, Floats] = {}
    highest: dict[str, Floats] = {}
    for seen in watch(model, names, small_pieces(batches)):
        for name, values in seen.items():
            others = (0, *range(2, values.ndim))
            low, high = values.min(axis=others), values.max(axis=others)
            lowest[name] = np.minimum(lowest.get(name, low), low)
            highest[name] = np.maximum(highest.get(name, high), high)
    half = np.float32(0.5)
    return {name: half * low + half * highest[name] for name, low in lowest.items()}


def _is_padded(node: NodeProto) -> bool:
    """Whether it looks at zeros beyond the border, which nothing was taken off."""
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return True
    return any(integers(node, "pads", []))


def _add_to_bias(
    model: onnx.ModelProto,
    values: dict[str, TensorProto],
    conv: NodeProto,
    change: NDArray[np.floating],
) -> None:
    """A bias of its own for one convolution: others may share the old one."""
    bias = numpy_helper.to_array(values[conv.input[2]])
    new = (bias + change).astype(np.float32)
    conv.input[2] = add_constant(model, f"{conv.input[2]}_moved", new)
    values[conv.input[2]] = model.graph.initializer[-1]
