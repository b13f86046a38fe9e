"""fp32 graph → **the same answers, finer steps**: a few channels several times.

The tensor between a convolution and a depthwise one has one step for all channels. A
filter that looks for edges takes the difference of neighbors that hardly differ, and
then little is left of 256 levels: in EfficientNet-Lite0, what one channel of the stem
loses here makes up a quarter of the noise of all logits. Such a channel is computed k
times, each time moved by one k-th of a step, and the dense layer behind takes the mean,
which is as good as a step of one k-th. Zhao et al., arXiv:1901.09504, split channels so
in order to halve their range.
"""

from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from training.graphs.graph import add_constant, drop_unused, producers
from training.quantization.layers import (
    CUTS,
    groups,
    is_biased_conv,
    only_reader,
    set_attributes,
)

# ONNX Runtime's int8 kernels compute so many channels at once, and numbers between take
# longer than the next multiple: a depthwise layer of 40 channels 1.6 times that of 48.
BLOCK = 16


class Spot(NamedTuple):
    """Convolution → the tensor → depthwise convolution → convolution."""

    writer: NodeProto
    depthwise: NodeProto  # one filter for each channel
    reader: NodeProto  # dense: the mean of the copies costs nothing here


class Copied(NamedTuple):
    """A graph with copies of channels."""

    model: onnx.ModelProto
    channels: int  # how many were added
    depthwise: str  # the layer whose filters are copies of each other


def copy_channels(model: onnx.ModelProto, tensor: str, *, step: float) -> Copied | None:
    """A graph that computes the channels of a tensor which lose most several times.

    The copies of a channel lie around it, by fractions of `step`, and what this changes
    in fp32 is less than rounding would. None where the tensor is not between a
    convolution and a depthwise one, before a dense one.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    spot = find_spot(copied, tensor)
    if spot is None:
        return None
    values = {t.name: numpy_helper.to_array(t) for t in copied.graph.initializer}
    written, made = (values[name] for name in spot.writer.input[1:])
    filters, biases = (values[name] for name in spot.depthwise.input[1:])
    read = values[spot.reader.input[1]]
    times = count_copies(filters, read)
    channel = np.repeat(np.arange(len(times)), times)  # of each output, old and new
    k = times[channel]
    nth = np.arange(len(channel)) - np.repeat(np.cumsum(times) - times, times)
    move = ((nth - (k - 1) / 2) / k * step).astype(np.float32)
    sums = filters.sum(axis=(1, 2, 3))[channel]
    mean = read[:, channel] / k[None, :, None, None]
    for node, position, value in (
        (spot.writer, 1, written[channel]),
        (spot.writer, 2, made[channel] + move),
        (spot.depthwise, 1, filters[channel]),
        (spot.depthwise, 2, biases[channel] - move * sums),
        (spot.reader, 1, mean),
    ):
        node.input[position] = add_constant(
            copied, f"{node.input[position]}_copied", value.astype(np.float32)
        )
    set_attributes(spot.depthwise, group=len(channel))
    del copied.graph.value_info[:]  # the shapes of before
    drop_unused(copied)
    shaped = onnx.shape_inference.infer_shapes(copied)
    return Copied(shaped, len(channel) - len(times), spot.depthwise.name)


def count_copies(
    filters: NDArray[np.float32], read: NDArray[np.float32]
) -> NDArray[np.int64]:
    """How often each channel is computed, [C]: what fits into the next block.

    The noise of a rounded channel grows with the squares of what it is multiplied with,
    `filters` [C, 1, kh, kw] and then `read` [O, C, kh, kw], and falls with that of the
    number of its copies.
    """
    noise = (filters**2).sum(axis=(1, 2, 3)) * (read**2).sum(axis=(0, 2, 3))
    times = np.ones(len(noise), dtype=np.int64)
    for _ in range(BLOCK - len(noise) % BLOCK):
        spared = noise * (1 / times**2 - 1 / (times + 1) ** 2)
        times[np.argmax(spared)] += 1
    return times


def find_spot(model: onnx.ModelProto, tensor: str) -> Spot | None:
    """The three layers around a tensor; None where these are others, or more."""
    made_by = producers(model)
    constants = {t.name: t for t in model.graph.initializer}
    writer = made_by.get(tensor)
    while writer is not None and writer.op_type in CUTS:
        if only_reader(model, writer.input[0]) is None:
            return None
        writer = made_by.get(writer.input[0])
    depthwise = only_reader(model, tensor)
    reader = depthwise and only_reader(model, depthwise.output[0], past=CUTS)
    if writer is None or depthwise is None or reader is None:
        return None
    layers = (writer, depthwise, reader)
    if not all(is_biased_conv(layer, constants) for layer in layers):
        return None
    weights = [list(constants[layer.input[1]].dims) for layer in layers]
    channels = weights[0][0]
    fits = all(len(dims) == 4 for dims in weights) and weights[1][:2] == [channels, 1]  # noqa: PLR2004  two-dimensional
    each = [groups(layer) for layer in layers]
    return Spot(*layers) if fits and each == [1, channels, 1] else None
