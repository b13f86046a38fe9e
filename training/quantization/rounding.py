"""int8 graph → **the same, rounded better**: each weight makes up for the last.

Rounding every weight to the nearest step is best for the weights, not for what the
layer computes: inputs are correlated and rarely average to zero, so the errors add up.
Here the weights of a layer are rounded one after another, and each error is passed on
to the weights not yet rounded so that the layer's *output* on real images changes
least; what remains at the end goes into the bias. This is optimal brain compression
in one order for all outputs, as GPTQ does (Frantar et al., arXiv:2208.11580 and
arXiv:2210.17323). It costs nothing when serving: same operators, other integers;
and other scales only where a channel came out empty.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from classifier.session import OUTPUT
from training.graphs.graph import attribute, parse, producers, serialize
from training.quantization.layers import dequantized, groups, integers
from training.quantization.ranges import watch

Floats = NDArray[np.float64]

# Places of an image that a convolution looks at and that enter its Gram matrix.
PLACES = 64
# Added to the Gram matrix's diagonal, as a share of its mean: with fewer examples than
# inputs it has no inverse.
DAMPING = 1e-3
STEPS = 127  # of a signed byte, symmetric
LARGEST_BIAS = 2.0**30  # in steps; half of what 32 bits hold
# The Gram matrix grows with the square of a layer's inputs and its inverse with the
# cube. Wider layers average out their rounding errors anyway, and are left as they are.
MAX_INPUTS = 1536
# Operators that pass the values of their first input on in the same order.
SAME_VALUES = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze"})


class Layer(NamedTuple):
    """A weighted layer with a bias, in G groups of R outputs and D inputs each."""

    name: str
    input: str  # the tensor that it reads
    weight: Floats  # [G, R, D + 1]; the bias is the last column
    kernel: tuple[int, ...]  # height and width; empty for a linear layer
    node: NodeProto


def round_optimally(
    fp32: onnx.ModelProto,
    int8: bytes,
    grams: Mapping[str, Floats],
    *,
    copied: Container[str] = (),
) -> bytes:
    """The int8 graph with better integers in its layers.

    `fp32` is the graph that `int8` was made of; `grams` are those of its layers. The
    layers named in `copied` have filters that are copies of each other (`copies.py`).
    """
    model = parse(int8)
    made_by = producers(model)
    values = {t.name: t for t in model.graph.initializer}
    quantized = {
        node.name: sources
        for node in model.graph.node
        if (sources := dequantized(node, made_by, values))
    }
    readers = Counter(weight.input[0] for weight, _ in quantized.values())
    for layer in find_layers(fp32):
        if layer.name not in quantized:
            continue
        weight, bias = quantized[layer.name]
        if readers[weight.input[0]] == 1:  # the steps of others are theirs as well
            refine_empty(layer, values[weight.input[1]], values[bias.input[1]])
        scale = _values(values[weight.input[1]]).reshape(layer.weight.shape[:2])
        rounded = compensate_copies if layer.name in copied else compensate
        integers, left = rounded(layer.weight, scale, grams[layer.name])
        overwrite(values[weight.input[0]], integers, np.int8)
        bias_scale = _values(values[bias.input[1]])
        overwrite(values[bias.input[0]], np.round(left.ravel() / bias_scale), np.int32)
    return serialize(model)


def refine_empty(layer: Layer, weight: TensorProto, bias: TensorProto) -> None:
    """Give filters without a weight steps like those of the others, in place.

    ONNX Runtime gives them 1, and a bias has the steps of its weights times those of
    the input: all that such a filter computes would be rounded to whole ones.
    """
    steps, bias_steps = _values(weight), _values(bias)
    rows = layer.weight.reshape(steps.size, -1)
    empty = ~rows[:, :-1].any(axis=1)
    if not empty.any() or empty.all():
        return
    finer = np.full_like(steps, np.median(steps[~empty]))
    input_step = bias_steps / steps
    finer = np.maximum(finer, np.abs(rows[:, -1]) / (input_step * LARGEST_BIAS))
    overwrite(weight, np.where(empty, finer, steps), np.float32)
    overwrite(bias, np.where(empty, finer * input_step, bias_steps), np.float32)


def center_logits(int8: bytes, shift: NDArray[np.float32]) -> bytes:
    """Take `shift` [K], the mean error of the logits, off the bias of the last layer.

    Nagel et al., arXiv:1906.04721, section 4.2, for the one layer whose mean decides.
    A graph that ends otherwise than in a Gemm, behind which only the layout or the type
    may change, is returned as it is.
    """
    model = parse(int8)
    made_by = producers(model)
    values = {t.name: t for t in model.graph.initializer}
    head = made_by.get(OUTPUT)
    while head is not None and head.op_type in SAME_VALUES:
        head = made_by.get(head.input[0])
    if head is None or head.op_type != "Gemm" or len(head.input) != 3:  # noqa: PLR2004  has a bias
        return int8
    dequantize = made_by.get(head.input[2])
    bias = values.get(head.input[2] if dequantize is None else dequantize.input[0])
    # not finite: what the gate will refuse
    if bias is None or list(bias.dims) != [len(shift)] or not np.isfinite(shift).all():
        return int8
    if dequantize is None:  # kept in fp32
        overwrite(bias, _values(bias) - shift, np.float32)
    else:
        steps = np.round(shift / _values(values[dequantize.input[1]]))
        overwrite(bias, _values(bias) - steps, np.int32)
    return serialize(model)


def compensate(weight: Floats, scale: Floats, gram: Floats) -> tuple[Floats, Floats]:
    """Round column after column, passing each error on to those that follow.

    Inputs that are large come first, while there are still many to pass an error to.

    Args:
        weight: [G, R, D + 1], the bias last.
        scale: size of a step, [G, R].
        gram: Σ x xᵀ over examples x of the layer's inputs with a 1 behind, [G, D + 1,
            D + 1].

    Returns:
        integers [G, R, D] in -127..127, and the bias [G, R] that goes with them.
    """
    size = gram.shape[-1]
    mean = np.einsum("gii->g", gram) / size
    energy = np.einsum("gii->gi", gram)
    order = np.argsort(-energy[:, :-1], axis=1, kind="stable")  # [G, D]
    order = np.pad(order, ((0, 0), (0, 1)), constant_values=size - 1)  # the bias last
    columns = order[:, None, :]
    sorted_gram = np.take_along_axis(gram, columns, axis=2)
    sorted_gram = np.take_along_axis(sorted_gram, order[:, :, None], axis=1)
    damped = sorted_gram + (DAMPING * mean + 1e-12)[:, None, None] * np.eye(size)
    # Row i of the upper Cholesky factor of the inverse says how the inputs behind i
    # can stand in for input i.
    factor = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left = np.take_along_axis(weight, columns, axis=2)
    integers = np.empty_like(weight[:, :, :-1])
    for i in range(size - 1):
        integers[:, :, i] = np.clip(np.round(left[:, :, i] / scale), -STEPS, STEPS)
        error = left[:, :, i] - integers[:, :, i] * scale  # [G, R]
        error /= factor[:, i, i, None]
        left[:, :, i:] -= error[:, :, None] * factor[:, i, None, i:]
    back = np.empty_like(integers)
    np.put_along_axis(back, columns[:, :, :-1], integers, axis=2)
    return back, left[:, :, -1]


def compensate_copies(
    weight: Floats, scale: Floats, gram: Floats
) -> tuple[Floats, Floats]:
    """`compensate`, where each copy of an output makes up for the ones before it too.

    Copies have the same weights and their mean is what counts: rounded alike, they
    would all be off by the same.
    """
    integers, left = compensate(weight, scale, gram)
    owed: dict[bytes, Floats] = {}  # weights → what all copies so far are off by
    for g, r in np.ndindex(weight.shape[:2]):
        wanted = weight[g, r]
        key = wanted[:-1].tobytes()
        if key in owed:
            wanted = wanted + owed[key]
            again, rest = compensate(
                wanted[None, None], scale[g, r].reshape(1, 1), gram[g : g + 1]
            )
            integers[g, r], left[g, r] = again[0, 0], rest[0, 0]
        owed[key] = wanted - np.append(integers[g, r] * scale[g, r], left[g, r])
    return integers, left


def find_layers(model: onnx.ModelProto) -> list[Layer]:
    """Convolutions and Gemms of at most `MAX_INPUTS`, with constant weight and bias."""
    values = {t.name: t for t in model.graph.initializer}
    layers = []
    for node in model.graph.node:
        turned = [bool(attribute(node, name, 0)) for name in ("transA", "transB")]
        plain_gemm = node.op_type == "Gemm" and turned == [False, True]
        known = [name in values for name in node.input[1:]] == [True, True]
        if not known or not (node.op_type == "Conv" or plain_gemm):
            continue
        weight, bias = (_values(values[name]) for name in node.input[1:])
        if bias.shape != (len(weight),):  # a bias of the batch, not of the outputs
            continue
        rows = weight.reshape(len(weight), -1)
        both = np.concatenate([rows, bias.reshape(-1, 1)], axis=1)
        shaped = both.reshape(groups(node), -1, both.shape[1])
        kernel = weight.shape[2:]
        padded = attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
        if both.shape[1] <= MAX_INPUTS and len(kernel) in (0, 2) and padded:
            layers.append(Layer(node.name, node.input[0], shaped, kernel, node))
    return layers


def measure_grams(
    model: onnx.ModelProto, layers: list[Layer], batches: Iterable[NDArray[np.uint8]]
) -> dict[str, Floats]:
    """Layer → Σ x xᵀ over places of real images, [G, D + 1, D + 1].

    `batches` are pixels, uint8 [N, H, W, C]; some hundred images do.
    """
    if not layers:  # asked for no tensor, ONNX Runtime returns them all
        return {}
    names = list(dict.fromkeys(layer.input for layer in layers))
    generator = np.random.default_rng(0)
    grams: dict[str, Floats] = {}
    for seen in watch(model, names, batches):
        for layer in layers:
            x = examples(seen[layer.input], layer, generator)  # [G, S, D + 1]
            gram = np.matmul(x.transpose(0, 2, 1), x).astype(np.float64)
            grams[layer.name] = grams.get(layer.name, np.zeros(1)) + gram
    return grams


def examples(
    inputs: NDArray[np.float32], layer: Layer, generator: np.random.Generator
) -> NDArray[np.float32]:
    """What a layer multiplies with its weights, a 1 behind: float32 [G, S, D + 1].

    S counts images, times up to `PLACES` random places for a convolution.
    """
    # [S, G, D]
    rows = _patches(inputs, layer, generator) if layer.kernel else inputs[:, None, :]
    ones = np.ones((*rows.shape[:2], 1), dtype=np.float32)
    return np.concatenate([rows, ones], axis=2).transpose(1, 0, 2)


def _patches(
    inputs: NDArray[np.float32], layer: Layer, generator: np.random.Generator
) -> NDArray[np.float32]:
    """inputs [N, C, H, W] → the windows at some random places, [N * P, G, D]."""
    node = layer.node
    strides = integers(node, "strides", [1, 1])
    spread = integers(node, "dilations", [1, 1])
    top, left, bottom, right = integers(node, "pads", [0, 0, 0, 0])
    padded = inputs
    if any((top, left, bottom, right)):  # else it would only be copied
        padded = np.pad(inputs, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = [(k - 1) * d + 1 for k, d in zip(layer.kernel, spread, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[
        :, :, :: strides[0], :: strides[1], :: spread[0], :: spread[1]
    ]  # [N, C, h, w, kh, kw]
    n, _, height, width = windows.shape[:4]
    count = min(PLACES, height * width)
    chosen = generator.choice(height * width, count, replace=False)
    windows = windows[:, :, chosen // width, chosen % width]  # [N, C, P, kh, kw]
    places: NDArray[np.float32] = windows.transpose(0, 2, 1, 3, 4)
    return places.reshape(n * count, groups(node), -1)


def _values(tensor: TensorProto) -> Floats:
    return numpy_helper.to_array(tensor).astype(np.float64)


def overwrite(tensor: TensorProto, values: Floats, dtype: type) -> None:
    """Write other values into an initializer of the same shape, as `dtype`."""
    array: NDArray[np.generic] = values.reshape(tuple(tensor.dims)).astype(dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
