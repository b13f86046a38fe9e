"""fp32 graph → **int8 graph**: static quantization with ranges from real images.

QuantizeLinear/DequantizeLinear pairs (QDQ) with U8 activations and S8 weights, one
weight scale per output channel: depthwise networks lose eight points with one scale per
tensor, half a point with one per channel. Ranges are the smallest and largest value
seen (MinMax). Jacob et al., arXiv:1712.05877; Nagel et al., arXiv:2106.08295.

Whether an int8 graph is good enough to be served is decided in `training/gate.py`.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from classifier.runtime import onnxruntime  # first: it turns the telemetry off

# isort: split
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorsData,
    create_calibrator,
)

from training.graph import (
    INPUT,
    GraphError,
    name_nodes,
    open_session,
    parse,
    producers,
    serialize,
    sort_nodes,
)

# Layers that hold the arithmetic. What lies before the first of them is normalization.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

# An explicit list, in a fixed order: the library's default is a set, whose order, and
# with it the bytes of the graph, changes from process to process.
QUANTIZABLE = (
    *sorted(WEIGHTED),
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Flatten",
    "GlobalAveragePool",
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


@dataclass(frozen=True)
class RangedGraph:
    """An fp32 graph ready to be quantized, with the range of each of its tensors."""

    model: onnx.ModelProto
    ranges: TensorsData
    layers: tuple[str, ...]  # names of the WEIGHTED nodes, in order of computation


def quantize_int8(
    fp32: bytes, ranges: Iterable[NDArray[np.uint8]], *, exclude: Iterable[str] = ()
) -> bytes:
    """The int8 graph; `ranges` are batches of pixels, uint8 [N, H, W, C].

    Nodes named in `exclude` stay in fp32. Input and outputs keep their types.

    Raises:
        GraphError: no batch, no layer to quantize, or a graph that does not run.
    """
    return quantize_ranged(measure_ranges(fp32, ranges), exclude=exclude)


def measure_ranges(fp32: bytes, batches: Iterable[NDArray[np.uint8]]) -> RangedGraph:
    """Simplify the graph and run `batches` through it, noting each tensor's range.

    Raises:
        GraphError: no batch, no layer to quantize, or a graph that does not run.
    """
    model = simplify(fp32)
    layers = tuple(n.name for n in model.graph.node if n.op_type in WEIGHTED)
    if not layers:
        raise GraphError("the graph has no convolution or linear layer to quantize")
    with tempfile.TemporaryDirectory(prefix="linnaeus-ranges-") as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(serialize(model))
        calibrator = create_calibrator(
            path,
            QUANTIZABLE,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        try:
            calibrator.collect_data(_Batches(batches))
        except ValueError as error:
            raise GraphError("quantization ranges need at least one batch") from error
        except Exception as error:  # a border: ONNX Runtime's classes share no base
            raise GraphError(f"the graph does not run: {error}") from error
        return RangedGraph(model, calibrator.compute_data(), layers)


def quantize_ranged(
    graph: RangedGraph, *, exclude: Iterable[str] = (), only: Iterable[str] = ()
) -> bytes:
    """Quantize with known ranges: all layers but `exclude`, or none but `only`."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=graph.ranges,
        nodes_to_quantize=list(only),
        nodes_to_exclude=[*exclude, *normalization_nodes(model)],
        op_types_to_quantize=QUANTIZABLE,
        extra_options={},
    )
    quantizer.quantize_model()
    keep_logits_exact(quantizer.model.model)
    sort_nodes(quantizer.model.model)
    return serialize(quantizer.model.model)


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
    return onnx.shape_inference.infer_shapes(model)


def keep_logits_exact(model: onnx.ModelProto) -> None:
    """Take the last Q/DQ pair off: logits of 256 levels would tie, and save nothing.

    The layer before then accumulates its 8-bit products straight into float32.
    """
    made_by = producers(model)
    dequantize = made_by[model.graph.output[0].name]
    if dequantize.op_type != "DequantizeLinear":
        return
    quantize = made_by[dequantize.input[0]]
    layer = made_by[quantize.input[0]]
    layer.output[0] = dequantize.output[0]
    model.graph.node.remove(dequantize)
    model.graph.node.remove(quantize)
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)


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


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # untyped library
    """Our batches in the form that the library reads them."""

    def __init__(self, batches: Iterable[NDArray[np.uint8]]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
