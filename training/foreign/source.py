"""path → **graph in memory**: an ONNX file that nobody vouches for.

Reading is bounded and runs nothing. What is refused, and why: files over 2 GiB
(protobuf's own bound), weights outside the file's folder, operators that are not
ONNX's or ONNX Runtime's own (they would need somebody's compiled code), control flow
(unbounded time), random operators (no golden example could be replayed), and tensors
so large that running the graph would be an attack on memory.
"""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, inliner, version_converter

from training.graphs.graph import MAX_GRAPH_BYTES, GraphError, opset, parse, serialize

# com.microsoft: what ONNX Runtime's own optimizer and quantizer write.
DOMAINS = ("", "ai.onnx", "com.microsoft")
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
MAX_NODES = 50_000
MAX_TENSOR_VALUES = 2**28  # one gibibyte of float32

# Per-channel int8 and every operator that the wrapping adds mean the same from 13 on,
# so such files keep their operator set: a conversion could only lose something.
OLDEST_OPSET = 13
TARGET_OPSET = 20  # for older files
# Up to IR version 3 weights had to stand among the inputs; 8 came with operator set 15.
OLDEST_IR_VERSION = 8


class Foreign(NamedTuple):
    """A file as it was read, and the graph that is worked on."""

    original: bytes  # all weights inside; what the wrapped graph is compared with
    sha256: dict[str, str]  # of the files as they lie there: the graph's, its weights'
    model: ModelProto  # operator set 13 or later, no weights among the inputs


def read_graph(path: Path) -> Foreign:
    """The graph with all its weights inside, checked.

    Raises:
        GraphError: missing, too large, damaged, or refused as the module says.
    """
    content = _read_bounded(path, MAX_GRAPH_BYTES)
    model = parse(content)
    refuse_unreadable_names(model)
    files = {path.name: content, **embed_weights(model, path)}
    sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    try:
        if model.functions:
            refuse_vast_functions(model)
            model = inliner.inline_local_functions(model)
        refuse_foreign_operators(model)
        free_empty_sides(model)
        onnx.checker.check_model(model, full_check=True)
        refuse_huge_tensors(model)
    except GraphError:
        raise
    except Exception as error:  # a border: C++ raises many types, and broken text
        raise GraphError(f"{path.name} is not valid ONNX: {error}") from error
    return Foreign(serialize(model), sha256, modernize(model))


def _read_bounded(path: Path, limit: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise GraphError(f"{path} has {size} bytes; at most {limit} are read")
        return path.read_bytes()
    except OSError as error:
        raise GraphError(f"cannot read {path}: {error}") from error


def embed_weights(model: ModelProto, graph: Path) -> dict[str, bytes]:
    """Bring weights that lie in files beside the file `graph` into the graph.

    Returns what these hold, by the names that the graph calls them.

    Raises:
        GraphError: a file is missing, too short, or not beside `graph`, or all weights
            together are too large.
    """
    files: dict[str, bytes] = {}
    total = embedded = 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        name, offset, length = _place(tensor)
        path = _beside(graph, name, tensor.name)
        if name not in files:
            files[name] = _read_bounded(path, MAX_GRAPH_BYTES - total)
            total += len(files[name])
        embedded += length  # tensors may share their bytes: 20 MB became 8 GB
        if embedded > MAX_GRAPH_BYTES:
            raise GraphError(
                f"the weights have {embedded} bytes up to {tensor.name!r}; at most "
                f"{MAX_GRAPH_BYTES} are read"
            )
        raw = files[name][offset : offset + length]
        if len(raw) != length:
            raise GraphError(
                f"{path.name} ends before the weights of {tensor.name!r}, "
                f"which are {length} bytes at {offset}"
            )
        tensor.raw_data = raw
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
    return files


def _tensors(model: ModelProto) -> list[TensorProto]:
    """Initializers and tensors in attributes, of the graph and its functions."""
    nodes = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    inside = [a.t for node in nodes for a in node.attribute if a.HasField("t")]
    return [*model.graph.initializer, *inside]


def _place(tensor: TensorProto) -> tuple[str, int, int]:
    """File, offset and length of external weights, as the graph has them."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset = int(said.get("offset", 0))
        width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        length = math.prod(tensor.dims) * width
        claimed = int(said.get("length", length))
    except (ValueError, KeyError) as error:
        raise GraphError(f"the weights of {tensor.name!r}: {error}") from error
    if offset < 0 or length < 0 or claimed != length:
        raise GraphError(
            f"the weights of {tensor.name!r} claim {said.get('length')} bytes at "
            f"{offset}; their shape {list(tensor.dims)} needs {length}"
        )
    return said.get("location", ""), offset, length


def _beside(graph: Path, location: str, tensor: str) -> Path:
    """The file that a graph names, with links followed.

    It must be inside the graph's folder. Where the graph is a link, as in the caches of
    model hubs, it may also be a link to the folder that the graph really lies in: who
    linked the graph chose that folder. Any other link out of the folder is refused, for
    an archive may bring links to whatever its maker wants to see.
    """
    where = f"the weights of {tensor!r} lie in {location!r}"
    try:
        outside = Path(location).is_absolute() or ".." in Path(location).parts
        path = (graph.parent / location).resolve()
        inside = path.is_relative_to(graph.parent.resolve())
        linked = path.parent == graph.resolve().parent
        there = path.is_file()
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise GraphError(f"{where}, which cannot be found: {error}") from error
    if not location or outside:
        raise GraphError(
            f"{where}, outside the folder of the graph; only files beside it are read"
        )
    if not (inside or linked):
        raise GraphError(
            f"{where}; {location!r} is a link to another folder than the graph's, and "
            "only files beside the graph are read. Copy both with cp -L"
        )
    if not there:
        raise GraphError(f"{where}, which is missing; put it beside the graph")
    return path


def refuse_unreadable_names(model: ModelProto) -> None:
    """Raise GraphError at names that are not UTF-8: protobuf gives them as bytes."""
    graph = model.graph
    names: list[str | bytes] = [
        *(t.name for t in [*graph.input, *graph.output, *graph.initializer]),
        *(entry.domain for entry in model.opset_import),
    ]
    for node in [*graph.node, *(n for f in model.functions for n in f.node)]:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    broken = next((name for name in names if isinstance(name, bytes)), None)
    if broken is not None:
        raise GraphError(f"not valid ONNX: the name {broken!r} is not text")


def refuse_vast_functions(model: ModelProto) -> None:
    """Raise GraphError where the functions of a file unfold to too many nodes.

    One that calls another twice, which calls a third twice, doubles them with every 25
    bytes. Calls count as nodes, so that functions which do nothing are seen as well.
    """
    bodies: dict[tuple[str, str], list[NodeProto]] = {}
    for function in model.functions:
        key = (function.domain.removesuffix("ai.onnx"), function.name)
        bodies.setdefault(key, []).extend(function.node)
    waiting, count = list(model.graph.node), len(model.graph.node)
    while waiting:
        node = waiting.pop()
        refuse_control_flow(node)  # its graphs could call functions, too
        body = bodies.get((node.domain.removesuffix("ai.onnx"), node.op_type), [])
        count += len(body)
        if count > MAX_NODES:
            raise GraphError(
                f"the functions of the graph unfold to more than {MAX_NODES} nodes"
            )
        waiting += body


def refuse_control_flow(node: NodeProto) -> None:
    """Raise GraphError at a node that holds graphs, or chooses what runs."""
    has_graph = any(a.HasField("g") or a.graphs for a in node.attribute)
    if node.op_type in CONTROL_FLOW or has_graph:
        raise GraphError(
            f"the graph has control flow ({_full_name(node)}); export the network in "
            "evaluation mode with fixed shapes"
        )


def _full_name(node: NodeProto) -> str:
    return f"{node.domain}.{node.op_type}".lstrip(".")


def refuse_foreign_operators(model: ModelProto) -> None:
    """Raise GraphError at operators that cannot be trusted or replayed."""
    nodes = model.graph.node
    sparse = any(a.HasField("sparse_tensor") for n in nodes for a in n.attribute)
    if model.graph.sparse_initializer or sparse:
        raise GraphError("the graph has sparse weights; make them dense")
    if len(nodes) > MAX_NODES:
        raise GraphError(f"the graph has {len(nodes)} nodes; at most {MAX_NODES}")
    for node in nodes:
        name = _full_name(node)
        if node.domain not in DOMAINS:
            raise GraphError(f"the graph needs the custom operator {name}")
        refuse_control_flow(node)
        if node.op_type in RANDOM:
            raise GraphError(f"the graph is random ({name}); export it for inference")


def free_empty_sides(model: ModelProto) -> None:
    """Some exporters write 0 or -1 for a dynamic side; others would believe the 0."""
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 1:
                dim.Clear()


def modernize(model: ModelProto) -> ModelProto:
    """The graph in operator set 13 or later, with the image alone as input.

    Raises:
        GraphError: an older graph that has no form in a newer one.
    """
    take_weights_off_inputs(model)
    if opset(model) >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, TARGET_OPSET)
    except Exception as error:  # a border: the converter raises what it meets
        raise GraphError(
            f"the graph has operator set {opset(model)} and cannot be converted to "
            f"{TARGET_OPSET}: {error}; export it again with {OLDEST_OPSET} or later"
        ) from error


def take_weights_off_inputs(model: ModelProto) -> None:
    """Weights that stand among the inputs too could be replaced at each run."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, OLDEST_IR_VERSION)


def refuse_huge_tensors(model: ModelProto) -> None:
    """Raise GraphError where a tensor's declared or inferred shape is an attack."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for info in [*inferred.graph.value_info, *inferred.graph.output]:
        dims = info.type.tensor_type.shape.dim
        values = math.prod(max(1, dim.dim_value) for dim in dims)
        if values > MAX_TENSOR_VALUES:
            raise GraphError(
                f"the tensor {info.name!r} would have {values} values; "
                f"at most {MAX_TENSOR_VALUES} are computed"
            )
