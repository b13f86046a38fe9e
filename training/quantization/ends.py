"""graph → **what keeps its floats**: before the first layer, and behind the last.

In front stand layout, mean and std. Behind stands what turns the scores of the last
layer into logits: a Reshape, the sum over some classes of a detector, the logarithm
that takes an imported Sigmoid back. Neither holds arithmetic that 8 bits would save
time in, and both need more than 256 levels.
"""

import math
from collections.abc import Container

import onnx

from training.graphs.graph import consumers, drop_unused, producers, rewire

# Layers that hold the arithmetic.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

# With so few constants a product is no layer: import takes the difference of two logits
# as a MatMul with [[-1], [1]].
FEW_WEIGHTS = 2


def normalization_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that no weighted layer feeds: layout, mean and std.

    Rounding them to 8 bits would lose what the pixels say before anything is learned
    from them, and saves nothing.
    """
    made_by = producers(model)
    learned: set[str] = set()  # tensors downstream of a weighted layer
    names = []
    for node in model.graph.node:  # in order of computation, as ONNX demands
        inputs = [name for name in node.input if name in made_by]
        if node.op_type in WEIGHTED or any(name in learned for name in inputs):
            learned.update(node.output)
        else:
            names.append(node.name)
    return names


def tail_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that feed no layer with constant weights, nor are one.

    A logarithm of scores that were rounded to zero would be an infinite logit.
    """
    needed: set[str] = set()  # tensors upstream of a layer
    layers = _layers(model)
    names = []
    for node in reversed(model.graph.node):
        if node.name in layers or needed.intersection(node.output):
            needed.update(name for name in node.input if name)
        else:
            names.append(node.name)
    return names[::-1]


def keep_logits_exact(model: onnx.ModelProto, tail: Container[str]) -> None:
    """Take the last Q/DQ pair off: logits of 256 levels would tie, and save nothing.

    That is each pair which only nodes in `tail` read, or which makes the logits. The
    layer before it accumulates its 8-bit products straight into float32.
    """
    made_by, read_by = producers(model), consumers(model)
    logits = model.graph.output[0].name
    for dequantize in list(model.graph.node):
        quantize = made_by.get(dequantize.input[0]) if dequantize.input else None
        if dequantize.op_type != "DequantizeLinear" or quantize is None:
            continue
        rounded = dequantize.output[0]
        readers = read_by.get(rounded, [])
        if any(node.name not in tail for node in readers):
            continue
        if rounded == logits:
            made_by[quantize.input[0]].output[0] = logits
        rewire(readers, rounded, quantize.input[0])
        model.graph.node.remove(dequantize)
        model.graph.node.remove(quantize)
    drop_unused(model)


def _layers(model: onnx.ModelProto) -> set[str]:
    """Names of the weighted nodes of which one factor does not hang on the pixels."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    seen = {tensor.name for tensor in model.graph.input}  # downstream of the pixels
    names = set()
    for node in model.graph.node:
        constants = [name for name in node.input[:2] if name not in seen]
        if node.op_type in WEIGHTED and any(
            sizes.get(name, math.inf) > FEW_WEIGHTS for name in constants
        ):
            names.add(node.name)
        if seen.intersection(node.input):
            seen.update(name for name in node.output if name)
    return names
