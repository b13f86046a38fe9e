"""ONNX files as others export them: small, with every habit that import must take."""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from classifier.runtime import onnxruntime

SIDE = 8  # H and W
CHANNELS = 3
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def stranger(  # noqa: PLR0913  one parameter a habit
    *,
    layout: str = "NCHW",
    dtype: str = "float32",
    batch: int | str = "N",
    classes: int = 4,
    tail: str = "logits",
    fixed_reshape: bool = False,
    opset: int = 20,
    ir_version: int = 8,
) -> ModelProto:
    """Convolution → ReLU → flatten → linear → `tail`, with random weights.

    `tail`: logits, softmax, sigmoid, hidden (a softmax written out), or square (logits
    [N, K, 1, 1]). Up to IR version 3 the weights are among the inputs.
    """
    generator = np.random.default_rng(7)
    real = np.float16 if dtype == "float16" else np.float32
    kind = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
    features = 4 * (SIDE // 2) ** 2
    reach = 0.002 if dtype == "uint8" else 0.4  # bytes are larger than floats
    weights = {
        "kernel": generator.normal(0, reach, (4, CHANNELS, 3, 3)).astype(real),
        "head": generator.normal(0, 0.4, (features, classes)).astype(real),
        "bias": generator.normal(0, 0.4, classes).astype(real),
        "flat": np.array([1 if fixed_reshape else -1, features]),
        "square": np.array([-1, classes, 1, 1]),
    }
    nodes = []
    image = "image"
    if dtype == "uint8":
        nodes.append(helper.make_node("Cast", [image], ["real"], to=kind))
        image = "real"
    if layout == "NHWC":
        nodes.append(
            helper.make_node("Transpose", [image], ["first"], perm=[0, 3, 1, 2])
        )
        image = "first"
    nodes += [
        helper.make_node(
            "Conv", [image, "kernel"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["logits"]),
    ]
    shape: list[int | str] = [batch, classes]
    nodes += _tail(tail)
    if tail == "square":
        shape += [1, 1]
    sides = [SIDE, SIDE]
    dims = [CHANNELS, *sides] if layout == "NCHW" else [*sides, CHANNELS]
    name = {"logits": "logits"}.get(tail, "scores")
    graph = helper.make_graph(
        nodes,
        "stranger",
        [helper.make_tensor_value_info("image", _input_type(dtype), [batch, *dims])],
        [helper.make_tensor_value_info(name, kind, shape)],
        [
            numpy_helper.from_array(value, key)
            for key, value in weights.items()
            if key != "square" or tail == "square"
        ],
    )
    if ir_version <= 3:
        graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in graph.initializer
        )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def probability_map(activation: str, *, then: str) -> ModelProto:
    """Convolution → `activation` at each position → `then` over all of them.

    `then`: mean, or layer (the mean, by a linear layer whose weights are all alike).
    """
    positions, classes = SIDE**2, 4
    kernel = np.random.default_rng(7).normal(0, 0.4, (classes, CHANNELS, 3, 3))
    make = helper.make_node
    axis = {"axis": 1} if activation == "Softmax" else {}
    nodes = [
        make("Conv", ["image", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        make(activation, ["c"], ["map"], **axis),
    ]
    if then == "mean":
        nodes += [
            make("GlobalAveragePool", ["map"], ["pooled"]),
            make("Flatten", ["pooled"], ["scores"]),
        ]
    else:
        nodes += [
            make("Reshape", ["map", "rows"], ["r"]),
            make("MatMul", ["r", "alike"], ["m"]),
            make("Squeeze", ["m", "last"], ["scores"]),
        ]
    weights = {
        "kernel": kernel.astype(np.float32),
        "rows": np.array([-1, classes, positions]),
        "alike": np.full((positions, 1), 1 / positions, np.float32),
        "last": np.array([2]),
    }
    used = {name for node in nodes for name in node.input}
    real = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "map",
        [helper.make_tensor_value_info("image", real, ["N", CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", real, ["N", classes])],
        [numpy_helper.from_array(v, k) for k, v in weights.items() if k in used],
    )
    imports = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _input_type(dtype: str) -> int:
    return TensorProto.UINT8 if dtype == "uint8" else TYPES[dtype]


def _tail(tail: str) -> list[NodeProto]:
    make = helper.make_node
    match tail:
        case "softmax":
            return [make("Softmax", ["logits"], ["scores"], axis=1)]
        case "sigmoid":
            return [make("Sigmoid", ["logits"], ["scores"])]
        case "square":
            return [make("Reshape", ["logits", "square"], ["scores"])]
        case "hidden":  # a softmax written out, which no last node gives away
            return [
                make("Exp", ["logits"], ["e"]),
                make("LpNormalization", ["e"], ["scores"], axis=1, p=1),
            ]
    return []


def photo(seed: int = 0, side: int = 21) -> NDArray[np.uint8]:
    """A smooth picture whose channels differ, uint8 [H, W, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def scores_of(graph: bytes, inputs: NDArray[np.generic]) -> NDArray[np.float64]:
    """What the stranger's graph says of one batch, [N, K]."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    scores = session.run(None, {"image": inputs})[0]
    return scores.reshape(len(inputs), -1).astype(np.float64)
