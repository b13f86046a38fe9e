"""layers + what 8 bits do to each → **what is tried next**, until the gate opens.

Two things are rounded: the weights of a layer, and the tensors between layers. Where
one tensor costs much of it all, its worst channels are computed several times, which
costs a few percent of a run (`copies.py`). If that is not enough, layers stay in fp32.
Such a layer spares its weights; a tensor is spared only if all layers that write or
read it stay in fp32. Errors of different places add up in squares. So what a set of
layers spares is a sum of squares, which is weighed against the time that int8 would
have saved in them.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from training.graphs.graph import (
    add_constant,
    add_node,
    attribute,
    consumers,
    parse,
    producers,
    rewire,
    run,
    sort_nodes,
)
from training.quantization.ends import WEIGHTED
from training.quantization.quantize import (
    QUANTIZABLE,
    Measured,
    quantize_measured,
    with_finer_steps,
)
from training.quantization.ranges import LEVELS
from training.quantization.rounding import overwrite

# More layers than that in fp32, and little of the speed is left.
MOST_RESCUED = 8
RESCUE_IMAGES = 32  # enough to rank; each layer and each tensor costs a run of these

# What int8 saves besides multiply-adds, counted in these: to write one output in four
# bytes instead of one and to read it again, and to fetch one weight, which all images
# of a batch share. Fitted to what the 50 layers of EfficientNet-Lite0 take in fp32 and
# in int8, batches of four on one Xeon core.
OUTPUT_COST = 40
WEIGHT_COST = 6

# Of a weight, which axis counts the outputs; those of a linear layer are its last axis.
CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}

# A tensor that makes up such a share of all noise gets finer steps, if it can.
MUCH = 0.05

LOGGER = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]  # [N, H, W, C]


class Rounding(NamedTuple):
    """One place where 8 bits lose something, and what would have to stay in fp32."""

    layers: frozenset[str]
    noise: float  # variance of the logits' errors from this place alone
    tensor: str | None = None  # None: the weights of a layer


class Attempt(NamedTuple):
    """An int8 graph, and what was done so that it loses less."""

    graph: bytes
    copies: int = 0  # channels that are computed once more
    kept: tuple[str, ...] = ()  # layers that stay in fp32


def attempts(graph: Measured, batches: Sequence[Pixels]) -> Iterator[Attempt]:
    """All layers in int8; with finer steps, where that pays; more and more in fp32.

    What is lost where is measured only when a second attempt is asked for.
    """
    int8 = quantize_measured(graph)
    yield Attempt(int8)
    few = some(batches, RESCUE_IMAGES)
    LOGGER.info("int8: ranking %d layers by what they lose", len(graph.layers))
    found = find_roundings(graph, parse(int8), few)
    finer = with_finer_worst(graph, found)
    if finer.copies:
        graph, int8 = finer, quantize_measured(finer)
        yield Attempt(int8, graph.copies)
        LOGGER.info("int8: ranking them again, with finer steps")
        found = find_roundings(graph, parse(int8), few)
    for kept in choose(found, saved_by_layer(graph.model), graph.layers):
        yield Attempt(quantize_measured(graph, exclude=kept), graph.copies, kept)


def with_finer_worst(graph: Measured, roundings: Iterable[Rounding]) -> Measured:
    """The graph with finer steps in the tensors that cost much, where they can be."""
    places = list(roundings)
    noise = sum(place.noise for place in places)
    worst = [p.tensor for p in places if p.tensor and p.noise >= MUCH * noise > 0]
    return with_finer_steps(graph, worst)


def choose(
    roundings: Iterable[Rounding], saved: Mapping[str, float], layers: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """Growing sets of at most `MOST_RESCUED` layers, in order of computation.

    Each time those layers are added that spare most for the time that they cost.
    """
    places = list(roundings)
    kept: frozenset[str] = frozenset()
    largest = min(MOST_RESCUED, len(layers) - 1)
    while True:
        ways = {place.layers - kept for place in places} - {frozenset()}
        fitting = [more for more in ways if len(kept | more) <= largest]
        if not fitting:
            return
        worth = {
            more: spared(places, kept, more) / sum(saved[layer] for layer in more)
            for more in fitting
        }
        # the names decide between equals: sets have no order
        best = max(fitting, key=lambda more: (worth[more], sorted(more)))
        kept |= best
        yield tuple(layer for layer in layers if layer in kept)


def spared(
    places: Iterable[Rounding], kept: frozenset[str], more: frozenset[str]
) -> float:
    """The noise that goes if some more layers stay in fp32 beside those `kept`."""
    return sum(
        place.noise
        for place in places
        if place.layers <= kept | more and not place.layers <= kept
    )


def find_roundings(
    graph: Measured, int8: onnx.ModelProto, batches: Sequence[Pixels]
) -> list[Rounding]:
    """Every place where something is rounded, and what that alone costs the logits.

    `int8` is the graph with all layers in int8.
    """
    reference = run(graph.model.SerializeToString(), batches)

    def noise(model: onnx.ModelProto) -> float:
        errors = run(model.SerializeToString(), batches) - reference
        if not np.isfinite(errors).all():
            return math.inf
        # what is the same for all images is taken off by `center_logits`
        return float(np.mean(np.var(errors, axis=0)))

    found = [
        Rounding(frozenset({layer}), noise(with_rounded_weights(graph, int8, layer)))
        for layer in graph.layers
    ]
    for tensor, layers in tensors_between(graph).items():
        lost = noise(with_rounded_tensor(graph, tensor))
        found.append(Rounding(layers, lost, tensor))
    return found


def tensors_between(graph: Measured) -> dict[str, frozenset[str]]:
    """Tensor → the layers between which it lies; without sums and their summands."""
    made_by, read_by = producers(graph.model), consumers(graph.model)
    between = {}
    for tensor in graph.ranges:
        ends = {reader.name for reader in read_by.get(tensor, ())}
        node = made_by.get(tensor) if ends else None
        while node is not None and node.op_type in QUANTIZABLE:
            computed = [name for name in node.input if name in made_by]
            if node.op_type in WEIGHTED or len(computed) != 1:
                ends.add(node.name)  # a layer, or a sum, which is none
                break
            node = made_by[computed[0]]
        if ends and ends.issubset(graph.layers):
            between[tensor] = frozenset(ends)
    return between


def with_rounded_tensor(graph: Measured, tensor: str) -> onnx.ModelProto:
    """The fp32 graph in which one tensor has 8 bits."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    low, high = graph.ranges[tensor]
    step = max(high - low, 1e-12) / LEVELS
    readers = consumers(model)[tensor]
    scale = add_constant(model, f"{tensor}_scale", np.array(step, np.float32))
    zero = add_constant(model, f"{tensor}_zero", np.array(round(-low / step), np.uint8))
    rounded = add_node(
        model, "QuantizeLinear", [tensor, scale, zero], f"{tensor}_rounded"
    )
    back = add_node(model, "DequantizeLinear", [rounded, scale, zero], f"{tensor}_back")
    rewire(readers, tensor, back)
    sort_nodes(model)
    return model


def with_rounded_weights(
    graph: Measured, int8: onnx.ModelProto, layer: str
) -> onnx.ModelProto:
    """The fp32 graph in which one layer has the weights that it has in `int8`."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    rounded = {tensor.name: tensor for tensor in int8.graph.initializer}
    made_by = producers(int8)
    (original,) = (node for node in model.graph.node if node.name == layer)
    (quantized,) = (node for node in int8.graph.node if node.name == layer)
    for old, new in zip(original.input[1:], quantized.input[1:], strict=True):
        dequantize = made_by.get(new)
        if old not in values or dequantize is None:
            continue
        integers, scale = (
            numpy_helper.to_array(rounded[name]) for name in dequantize.input[:2]
        )
        step = along_channels(dequantize, scale, integers.ndim)
        overwrite(values[old], integers * step, np.float32)
    return model


def along_channels(
    dequantize: onnx.NodeProto, scale: NDArray[np.float32], axes: int
) -> NDArray[np.float32]:
    """The scale of a tensor of so many axes, shaped so that it broadcasts over it.

    Where the channels are depends on the operator: first in a Conv, second in a
    ConvTranspose or a MatMul, either in a Gemm.
    """
    shape = [1] * axes
    if scale.size > 1:
        axis: int = attribute(dequantize, "axis", 1)  # type: ignore[assignment]
        shape[axis] = -1
    return scale.reshape(shape)


def saved_by_layer(model: onnx.ModelProto) -> dict[str, float]:
    """Layer → what int8 saves in it for one image, in multiply-adds, more or less."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for info in [*model.graph.value_info, *model.graph.output]:
        dims = info.type.tensor_type.shape.dim
        sizes[info.name] = tuple(d.dim_value for d in dims)
    saved = {}
    for node in model.graph.node:
        output = sizes.get(node.output[0], ())
        weight = sizes.get(node.input[1], ()) if len(node.input) > 1 else ()
        outputs = math.prod(output[1:])
        axis = CHANNEL_AXIS.get(node.op_type)
        rows = (output or (1,))[-1] if axis is None or not weight else weight[axis]
        products = math.prod(weight) / max(1, rows)  # summed up for one output
        saved[node.name] = (
            1.0 + outputs * (products + OUTPUT_COST) + math.prod(weight) * WEIGHT_COST
        )
    return saved


def some(batches: Sequence[Pixels], images: int) -> list[Pixels]:
    """About so many images, evenly spread over all batches."""
    size = max(1, len(batches[0]))
    step = max(1, len(batches) * size // images)
    return list(batches[::step])
