"""fp32 graph → **half the bytes**: fp16 arithmetic for a GPU, or fp16 storage alone.

Micikevicius et al., arXiv:1710.03740: weights and activations of a trained network fit
into fp16, and so do pixels, which are whole numbers up to 255. On a CPU fp16 arithmetic
is slower than fp32, so there the weights are only *stored* in fp16: ONNX Runtime folds
the Cast nodes when it loads the graph and computes in fp32. So of fp16 arithmetic a CPU
shows what the weights lose, but not what the activations would: that is looked for in
the activations themselves.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from training.graphs.graph import (  # first: it turns ONNX Runtime's telemetry off
    GraphError,
    fresh_name,
    parse,
    run,
    serialize,
    sort_nodes,
)
from training.quantization.quantize import simplify
from training.quantization.ranges import watch

# isort: split
from onnxruntime.transformers.float16 import convert_float_to_float16

# Below this many values a tensor is not worth a node.
MIN_STORED_VALUES = 1024

# Storage in fp16 is refused where it moves a logit by more than this share of the
# largest logit: well under what changes an answer, well over fp16's rounding (2^-11).
MAX_RELATIVE_ERROR = 0.01

# The same for fp16 arithmetic, which rounds also what one layer gives the next.
MAX_ARITHMETIC_ERROR = 0.05

# Half of what fp16 holds, 65504: images to come reach further than those at hand.
MAX_ACTIVATION = float(np.finfo(np.float16).max) / 2


class StoredGraph(NamedTuple):
    """A graph and what its smaller form costs: the largest |logit error| seen."""

    graph: bytes
    max_logit_error: float


def to_float16(fp32: bytes) -> bytes:
    """The graph in fp16 arithmetic; pixels stay uint8 and outputs float32.

    Raises:
        GraphError: an operator that has no fp16 form.
    """
    model = simplify(fp32)
    try:
        half = convert_float_to_float16(
            model,
            keep_io_types=True,
            disable_shape_infer=True,  # `simplify` has inferred them
        )
    except Exception as error:  # a border: the library raises what it meets
        raise GraphError(f"the graph has no fp16 form: {error}") from error
    sort_nodes(half)
    return serialize(half)


def lost_in_float16(
    fp32: bytes, half: bytes, sample: Sequence[NDArray[np.uint8]]
) -> str | None:
    """What the weights of an fp16 graph have lost, if that is too much.

    The conversion clips weights beyond 65,504 and loses tiny ones without a word. On a
    CPU that can be seen, and what is rounded between the layers in part.
    """
    error, largest = moved_by(fp32, half, sample)
    if error <= MAX_ARITHMETIC_ERROR * largest:  # of what is no number nothing is known
        return None
    return (
        f"a logit moves by {error:.3g}, and the largest is {largest:.3g}; at most "
        f"{MAX_ARITHMETIC_ERROR:.0%} of it is accepted"
    )


def moved_by(
    fp32: bytes, other: bytes, sample: Sequence[NDArray[np.uint8]]
) -> tuple[float, float]:
    """How far another graph moves a logit at most, and the largest logit of fp32."""
    before, after = run(fp32, sample), run(other, sample)
    return float(np.abs(before - after).max()), float(np.abs(before).max())


def largest_activation(fp32: bytes, batches: Iterable[NDArray[np.uint8]]) -> float:
    """The largest absolute value of all that the nodes give each other.

    `batches` are pixels, uint8 [N, H, W, C]. Where it is over `MAX_ACTIVATION`, fp16
    arithmetic may overflow: the answer is NaN then, on a GPU and not on a CPU. The
    first batch that is over it is the last that is run.

    Raises:
        GraphError: the graph does not run.
    """
    model = simplify(fp32)
    infos = [*model.graph.value_info, *model.graph.output]
    kinds = {info.name: info.type.tensor_type.elem_type for info in infos}
    outputs = [name for node in model.graph.node for name in node.output]
    peaks = []
    for name in outputs:
        if kinds.get(name) != TensorProto.FLOAT:
            continue
        absolute, peak = (
            fresh_name(model, f"{name}_{kind}") for kind in ("absolute", "peak")
        )
        model.graph.node.append(helper.make_node("Abs", [name], [absolute]))
        # over all axes at once: whole activations would fill the memory
        largest = helper.make_node("ReduceMax", [absolute], [peak], keepdims=0)
        model.graph.node.append(largest)
        peaks.append(peak)
    reached = 0.0
    for seen in watch(model, peaks, batches):
        reached = float(np.max([reached, *seen.values()]))
        if not reached <= MAX_ACTIVATION:  # NaN too
            break
    return reached


def store_weights_as_float16(
    fp32: bytes, sample: Sequence[NDArray[np.uint8]]
) -> StoredGraph:
    """The same fp32 graph with its big weights stored in fp16, half the file.

    `sample` are batches of real pixels, uint8 [N, H, W, C], on which the logits of both
    are compared. Weights that fp16 cannot hold stay as they are.

    Raises:
        GraphError: the logits move by more than `MAX_RELATIVE_ERROR`.
    """
    graph = halve_weights(fp32)
    error, largest = moved_by(fp32, graph, sample)
    if not error <= MAX_RELATIVE_ERROR * largest:
        raise GraphError(
            f"fp16 storage of the weights moves a logit by {error:.3g}; "
            f"at most {MAX_RELATIVE_ERROR:.0%} of the largest logit is accepted"
        )
    return StoredGraph(graph, error)


def halve_weights(graph: bytes) -> bytes:
    """Store big fp32 weights in fp16; whoever calls this measures what it costs."""
    model = parse(graph)
    for tensor in [t for t in model.graph.initializer if _fits(t)]:
        _store(model, tensor)
    return serialize(model)


def _fits(tensor: TensorProto) -> bool:
    """Whether a tensor is a float32 matrix, big, and inside fp16's range of ±65504.

    Vectors are biases and the scales of int8, which must keep their precision.
    """
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:  # noqa: PLR2004
        return False
    values = numpy_helper.to_array(tensor)
    limit = float(np.finfo(np.float16).max)
    return values.size >= MIN_STORED_VALUES and bool(np.abs(values).max() <= limit)


def _store(model: ModelProto, tensor: TensorProto) -> None:
    """Replace an initializer by its fp16 form and a Cast back, under the old name."""
    half = numpy_helper.to_array(tensor).astype(np.float16)
    name = tensor.name
    stored = fresh_name(model, f"{name}_fp16")
    tensor.CopyFrom(numpy_helper.from_array(half, stored))
    cast = helper.make_node(
        "Cast", [stored], [name], name=f"{stored}_cast", to=TensorProto.FLOAT
    )
    model.graph.node.insert(0, cast)
