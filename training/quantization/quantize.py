"""fp32 graph → **int8 graph**: static quantization with ranges from real images.

QuantizeLinear/DequantizeLinear pairs (QDQ) with U8 activations and S8 weights, one
weight scale per output channel: depthwise networks lose eight points with one scale per
tensor, half a point with one per channel. Jacob et al., arXiv:1712.05877; Nagel et al.,
arXiv:2106.08295. The stages, most of them in modules beside this:

    simplify → center_channels → find_ranges → insert Q/DQ → keep_logits_exact
    → feed_pixels → round_optimally → center_logits

`measure` does the first three, once. `quantize_measured` does the others, in each of
`rescue.attempts`, with copies of channels and then with more and more layers in fp32,
until `gate.py` finds the int8 graph good enough to be served. `pack_pixels` comes last.
"""

import tempfile
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from classifier.runtime import onnxruntime  # first: it turns the telemetry off

# isort: split
from onnxruntime.quantization import (
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorsData,
)

from training.graphs.graph import (
    GraphError,
    add_constant,
    attribute,
    drop_unused,
    name_nodes,
    open_session,
    parse,
    run,
    serialize,
    sort_nodes,
)
from training.quantization.centering import center_channels
from training.quantization.copies import copy_channels
from training.quantization.ends import (
    WEIGHTED,
    keep_logits_exact,
    normalization_nodes,
    tail_nodes,
)
from training.quantization.layers import is_quantizable, part_weights
from training.quantization.packing import pack_pixels
from training.quantization.pixels import feed_pixels, pixel_range
from training.quantization.ranges import LEVELS, Ranges, find_ranges
from training.quantization.rounding import (
    center_logits,
    find_layers,
    measure_grams,
    round_optimally,
)

# An explicit list, in a fixed order: the library's default is a set, whose order, and
# with it the bytes of the graph, changes from process to process.
QUANTIZABLE = (
    *sorted(WEIGHTED),
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Flatten",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Squeeze",
    "Transpose",
)

# What rounding and centering look at; ranges are taken from all images.
SOME_IMAGES = 300


class QuantizationError(GraphError):
    """A sound graph that has no int8 form; says why."""


@dataclass(frozen=True)
class Measured:
    """An fp32 graph with all that quantizing it again and again needs to know."""

    model: onnx.ModelProto
    ranges: Ranges
    grams: Mapping[str, NDArray[np.float64]]
    layers: tuple[str, ...]  # WEIGHTED nodes to quantize, in order of computation
    batches: Sequence[NDArray[np.uint8]]  # some of those that gave the ranges
    mean_logits: NDArray[np.float32]  # of fp32 over these, [K]
    copies: int = 0  # channels that are computed once more, by `copies.py`
    copied: tuple[str, ...] = ()  # layers with filters that are copies of each other


def quantize_int8(fp32: bytes, calibration: Iterable[NDArray[np.uint8]]) -> bytes:
    """The graph with all layers in int8, whatever that costs: for measurements.

    `calibration` are batches of pixels, uint8 [N, H, W, C]. Input and outputs keep
    their types. What is served comes from `gate.gated_int8`.

    Raises:
        GraphError: no batch, or a graph that does not run.
        QuantizationError: no layer to quantize, or an operator that ONNX Runtime's
            quantizer cannot handle.
    """
    return pack_pixels(quantize_measured(measure(fp32, calibration)))


def measure(fp32: bytes, calibration: Iterable[NDArray[np.uint8]]) -> Measured:
    """Prepare a graph and run images through it, once for all attempts at quantizing.

    `calibration` are batches of pixels, uint8 [N, H, W, C], which give the ranges.

    Raises:
        GraphError: no batch, or a graph that does not run.
        QuantizationError: no layer to quantize.
    """
    batches = list(calibration)
    some = batches[:: max(1, sum(map(len, batches)) // SOME_IMAGES)]
    model = simplify(fp32)
    center_channels(model, batches)
    tail = set(tail_nodes(model))
    layers = tuple(
        node.name
        for node in model.graph.node
        if node.op_type in WEIGHTED and node.name not in tail and is_quantizable(node)
    )
    if not layers:
        raise QuantizationError("it has no convolution or linear layer to quantize")
    ranges = find_ranges(model, quantizable_tensors(model, tail), batches)
    return Measured(
        model,
        {**ranges, **pixel_range(model)},
        grams=measure_grams(model, find_layers(model), some),
        layers=layers,
        batches=some,
        mean_logits=run(fp32, some).mean(axis=0),
    )


def quantize_measured(graph: Measured, *, exclude: Iterable[str] = ()) -> bytes:
    """Quantize what was measured: all layers but `exclude`, which stay in fp32.

    Raises:
        QuantizationError: an operator that ONNX Runtime's quantizer cannot handle.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    ranges = {
        name: (np.array([low], np.float32), np.array([high], np.float32))
        for name, (low, high) in graph.ranges.items()
    }
    tail = tail_nodes(model)
    unable = [node.name for node in model.graph.node if not is_quantizable(node)]
    try:
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[],  # all of the types below
            nodes_to_exclude=[*exclude, *unable, *normalization_nodes(model), *tail],
            op_types_to_quantize=QUANTIZABLE,
            extra_options={},
        )
        quantizer.quantize_model()
    except Exception as error:  # a border: the library raises what it meets
        raise QuantizationError(f"ONNX Runtime cannot quantize it: {error}") from error
    keep_logits_exact(quantizer.model.model, tail)
    del quantizer.model.model.graph.value_info[:]  # of fp32 tensors, many gone
    feed_pixels(quantizer.model.model)
    sort_nodes(quantizer.model.model)
    int8 = serialize(quantizer.model.model)
    int8 = round_optimally(graph.model, int8, graph.grams, copied=graph.copied)
    shift = run(int8, graph.batches).mean(axis=0) - graph.mean_logits
    return center_logits(int8, shift)


def with_finer_steps(graph: Measured, tensors: Iterable[str]) -> Measured:
    """The graph with copies of those channels of some tensors that 8 bits cost most.

    A tensor that `copy_channels` does not know how to treat stays as it is.
    """
    finer = graph
    for tensor in tensors:
        low, high = graph.ranges[tensor]
        copied = copy_channels(finer.model, tensor, step=(high - low) / LEVELS)
        if copied is not None:
            finer = replace(
                finer,
                model=copied.model,
                copies=finer.copies + copied.channels,
                copied=(*finer.copied, copied.depthwise),
            )
    if finer is graph:
        return graph
    grams = measure_grams(finer.model, find_layers(finer.model), graph.batches)
    return replace(finer, grams=grams)


def simplify(fp32: bytes) -> onnx.ModelProto:
    """Fold constants and batch norms, infer shapes, name each node.

    ONNX Runtime's basic optimizations are portable: plain ONNX in, plain ONNX out.
    """
    with tempfile.TemporaryDirectory(prefix="linnaeus-simplify-") as folder:
        path = Path(folder) / "simplified.onnx"
        basic = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        open_session(fp32, level=basic, save_to=path)
        model = parse(path.read_bytes())
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    name_nodes(model)
    fold_factors(model)
    broadcast_biases(model)
    part_weights(model)
    return onnx.shape_inference.infer_shapes(model)


def fold_factors(model: onnx.ModelProto) -> None:
    """Multiply the alpha and beta of all Gemms into constant weights and biases.

    The other stages take a Gemm for weight · x + bias, as nearly every one is.
    """
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type == "Gemm"]:
        for position, name in ((1, "alpha"), (2, "beta")):
            fields = [f for f in node.attribute if f.name == name and f.f != 1]
            tensor = values.get([*node.input, ""][position])
            if fields and tensor is not None:
                node.attribute.remove(fields[0])
                value = numpy_helper.to_array(tensor) * np.float32(fields[0].f)
                wish = f"{tensor.name}_{name}"
                node.input[position] = add_constant(model, wish, value)
    drop_unused(model)


def broadcast_biases(model: onnx.ModelProto) -> None:
    """Write the constant biases of all Gemms as [K], in place.

    ONNX lets them broadcast from a single number or [1, K], and ONNX Runtime's
    quantizer does not.
    """
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    replaced = False
    for node in model.graph.node:
        weight, bias = (values.get(name) for name in [*node.input, "", ""][1:3])
        if node.op_type != "Gemm" or weight is None or bias is None:
            continue
        outputs = weight.dims[0 if attribute(node, "transB", 0) else 1]
        value = numpy_helper.to_array(bias)
        one_row = value.size == 1 or value.shape == (1, outputs)
        if one_row and value.shape != (outputs,):
            row = np.broadcast_to(value.ravel(), outputs)
            node.input[2] = add_constant(model, f"{bias.name}_row", row)
            replaced = True
    if replaced:
        drop_unused(model)


def quantizable_tensors(model: onnx.ModelProto, tail: Container[str]) -> Sequence[str]:
    """The float tensors [N, …] that quantization may touch; nodes in `tail` do not."""
    constants = {tensor.name for tensor in model.graph.initializer}
    infos = [*model.graph.value_info, *model.graph.output]
    floats = {
        info.name
        for info in infos
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    touched = (
        name
        for node in model.graph.node
        if node.op_type in QUANTIZABLE and node.name not in tail
        for name in [*node.input, *node.output]
    )
    return [n for n in dict.fromkeys(touched) if n in floats and n not in constants]
