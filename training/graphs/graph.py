"""bytes ↔ **graph**: read an ONNX file, look around in it, write it back, run it.

What quantization, fp16 and import have in common. Everything works on bytes, so that
no half-written file is ever left behind, and writing is deterministic: the same graph
gives the same bytes, which is what a bundle's SHA-256 stands for.
"""

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from classifier.hardware import available_cores
from classifier.runtime import onnxruntime
from classifier.session import DISABLED_OPTIMIZERS, INPUT, OUTPUT
from training.errors import TrainingError

# Protobuf cannot hold more than 2 GiB in one message.
MAX_GRAPH_BYTES = 2**31 - 1


class GraphError(TrainingError):
    """An ONNX graph that we cannot read, run or rewrite; says which and why."""


def parse(data: bytes) -> ModelProto:
    """The message in `data`; nothing of it is run or followed to other files.

    Raises:
        GraphError: not ONNX, or cut off.
    """
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise GraphError("not an ONNX file, or cut off") from error
    if not model.HasField("graph") or not model.graph.output:
        raise GraphError("not an ONNX file: it holds no graph with an output")
    return model


def serialize(model: ModelProto) -> bytes:
    """Deterministic bytes, without traces of the machine that made the graph.

    Raises:
        GraphError: more than protobuf's 2 GiB.
    """
    strip_metadata(model)
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise GraphError(f"the graph cannot be written: {error}") from error


def strip_metadata(model: ModelProto) -> None:
    """Exporters write source paths and stack traces on every node; take them off."""
    del model.metadata_props[:]
    model.doc_string = ""
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        del graph.metadata_props[:]
        graph.doc_string = ""
        tensors = getattr(graph, "initializer", ())
        ports = [*graph.input, *graph.output] if hasattr(graph, "initializer") else []
        for item in [*graph.node, *graph.value_info, *tensors, *ports]:
            del item.metadata_props[:]
            item.doc_string = ""
        for node in graph.node:
            for attribute in node.attribute:
                attribute.doc_string = ""
                graphs.extend(attribute.graphs)
                if attribute.type == onnx.AttributeProto.GRAPH:
                    graphs.append(attribute.g)


def name_nodes(model: ModelProto) -> None:
    """Give each node a unique name: quantization excludes layers by name."""
    seen: set[str] = set()
    for position, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{position}_{len(seen)}"
        seen.add(node.name)


def sort_nodes(model: ModelProto) -> None:
    """Put each node behind those it reads from, as ONNX demands; else keep the order.

    Raises:
        GraphError: the graph has a cycle.
    """
    nodes = list(model.graph.node)
    made_by = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [{made_by[n] for n in node.input if n in made_by} for node in nodes]
    missing = [len(own) for own in needs]
    readers: list[list[int]] = [[] for _ in nodes]
    for reader, own in enumerate(needs):
        for source in own:
            readers[source].append(reader)
    ready = [i for i, count in enumerate(missing) if not count]  # a heap: in order
    ordered: list[NodeProto] = []
    while ready:
        first = heapq.heappop(ready)
        ordered.append(nodes[first])
        for reader in readers[first]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(ordered) < len(nodes):
        stuck = next(n for n, count in zip(nodes, missing, strict=True) if count)
        raise GraphError(f"the graph has a cycle at node {stuck.name!r}")
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def opset(model: ModelProto) -> int:
    """Version of the default operator set; 0 when the file imports none."""
    versions = [e.version for e in model.opset_import if e.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def producers(model: ModelProto) -> dict[str, NodeProto]:
    """Tensor name → the node that computes it."""
    return {name: node for node in model.graph.node for name in node.output if name}


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Tensor name → the nodes that read it."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def drop_unused(model: ModelProto) -> None:
    """Some outputs are gone; what only they needed goes too."""
    made_by = producers(model)
    needed: set[str] = set()
    waiting = [output.name for output in model.graph.output]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            node = made_by.get(name)
            waiting.extend(node.input if node else ())
    nodes = [n for n in model.graph.node if needed.intersection(n.output)]
    tensors = [t for t in model.graph.initializer if t.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensors)


def constant(model: ModelProto, name: str) -> NDArray[np.generic] | None:
    """The value of an initializer or a Constant node; None if `name` is computed.

    Raises:
        GraphError: it is damaged; ONNX's own checker does not count the values.
    """
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return _array(tensor, name)
    for node in model.graph.node:
        if node.op_type == "Constant" and name in node.output:
            return _array(_constant_tensor(node), name)
    return None


def _array(tensor: TensorProto, name: str) -> NDArray[np.generic]:
    try:
        return numpy_helper.to_array(tensor)
    except (TypeError, ValueError) as error:
        raise GraphError(f"the tensor {name!r} cannot be read: {error}") from error


def _constant_tensor(node: NodeProto) -> TensorProto:
    value = onnx.helper.get_attribute_value(node.attribute[0])
    if isinstance(value, TensorProto):
        return value
    return numpy_helper.from_array(np.asarray(value))


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """The value of one attribute, or `default` where the node does not set it."""
    for candidate in node.attribute:
        if candidate.name == name:
            return onnx.helper.get_attribute_value(candidate)
    return default


def fresh_name(model: ModelProto, wish: str) -> str:
    """`wish`, or with a number behind it where a tensor or node has that name."""
    graph = model.graph
    taken = {t.name for t in [*graph.input, *graph.output, *graph.initializer]}
    for node in graph.node:
        taken.update([node.name, *node.input, *node.output])
    number = 1
    name = wish
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name


def add_constant(model: ModelProto, wish: str, value: NDArray[np.generic]) -> str:
    """A new initializer; its name is `wish`, or like it."""
    name = fresh_name(model, wish)
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def add_node(
    model: ModelProto, op: str, inputs: list[str], wish: str, **attributes: object
) -> str:
    """A new node at the end; it and its only output are named `wish`, or like it."""
    name = fresh_name(model, wish)
    node = helper.make_node(op, inputs, [name], name=name, **attributes)  # type: ignore[arg-type]
    model.graph.node.append(node)
    return name


def rewire(nodes: Iterable[NodeProto], old: str, new: str) -> None:
    """Let each of the nodes that reads the tensor `old` read `new`."""
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def open_session(
    graph: bytes, *, level: object = None, save_to: Path | None = None
) -> "onnxruntime.InferenceSession":
    """A CPU session with as many threads as we may use, spinning off.

    `level` limits ONNX Runtime's optimizations; the optimized graph goes to `save_to`.

    Raises:
        GraphError: ONNX Runtime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 4  # errors become exceptions, translated below
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if level is not None:
        options.graph_optimization_level = level
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    try:
        return onnxruntime.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(DISABLED_OPTIMIZERS),  # as it will be served
        )
    except Exception as error:  # a border: ONNX Runtime's classes share no base
        raise GraphError(f"ONNX Runtime refuses the graph: {error}") from error


def run(
    graph: bytes, batches: Iterable[NDArray[np.uint8]], *, output: str = OUTPUT
) -> NDArray[np.float32]:
    """pixels uint8 [N, H, W, C], batch after batch → logits float32 [ΣN, K].

    Raises:
        GraphError: ONNX Runtime refuses the graph or a batch.
    """
    return np.concatenate(list(_outputs(graph, batches, output)))


def _outputs(
    graph: bytes, batches: Iterable[NDArray[np.uint8]], output: str
) -> Iterator[NDArray[np.float32]]:
    session = open_session(graph)
    for batch in batches:
        try:
            yield session.run([output], {INPUT: batch})[0]
        except Exception as error:  # a border, as above
            raise GraphError(f"ONNX Runtime cannot run the graph: {error}") from error
