"""A small convolutional graph with a bundle's contract, and pixels for it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from training.graphs.graph import producers

CLASSES = 5
SIDE = 16


def net(*, seed: int = 0, classes: int = CLASSES) -> ModelProto:
    """Stem → depthwise → bottleneck → residual → pooling → head, as Lite0 has them."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> NDArray[np.float32]:
        scale = 1.6 / np.sqrt(np.prod(shape[1:]))
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    values = {
        "mean": np.full(3, 127, np.float32),
        "std": np.full(3, 128, np.float32),
        "w0": weight(16, 3, 3, 3),
        "b0": weight(16, 1)[:, 0],
        "w1": weight(16, 1, 3, 3),
        "b1": weight(16, 1)[:, 0],
        "w2": weight(12, 16, 1, 1),
        "b2": weight(12, 1)[:, 0],
        "w3": weight(12, 12, 1, 1),
        "b3": weight(12, 1)[:, 0],
        "w4": weight(48, 12, 1, 1),
        "b4": weight(48, 1)[:, 0],
        "w5": weight(classes, 48) * 2,
        "b5": weight(classes, 1)[:, 0],
        "low": np.float32(0),
        "high": np.float32(6),
    }
    make = helper.make_node
    nodes = [
        make("Transpose", ["pixels"], ["t"], perm=[0, 3, 1, 2]),
        make("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        make("Sub", ["f", "mean3"], ["s"]),
        make("Div", ["s", "std3"], ["x"]),
        make("Conv", ["x", "w0", "b0"], ["c0"], strides=[2, 2], pads=[0, 0, 1, 1]),
        make("Clip", ["c0", "low", "high"], ["r0"]),
        make("Conv", ["r0", "w1", "b1"], ["c1"], group=16, pads=[1] * 4, name="dw"),
        make("Clip", ["c1", "low", "high"], ["r1"]),
        make("Conv", ["r1", "w2", "b2"], ["c2"], name="narrow"),
        make("Conv", ["c2", "w3", "b3"], ["c3"]),
        make("Add", ["c2", "c3"], ["a"]),
        make("Conv", ["a", "w4", "b4"], ["c4"]),
        make("Clip", ["c4", "low", "high"], ["r4"]),
        make("GlobalAveragePool", ["r4"], ["g"]),
        make("Flatten", ["g"], ["v"]),
        make("Gemm", ["v", "w5", "b5"], ["logits"], transB=1, name="head"),
    ]
    values["mean3"] = values.pop("mean").reshape(3, 1, 1)
    values["std3"] = values.pop("std").reshape(3, 1, 1)
    pixels = helper.make_tensor_value_info(
        "pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3]
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()]
    graph = helper.make_graph(nodes, "net", [pixels], [logits], weights)
    imports = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def with_linear_head(weight: NDArray[np.float32], operator: str) -> ModelProto:
    """The network with a weight [48, K] behind its pooling, as Keras has it."""
    model = net(classes=weight.shape[1])
    change_constant(model, "w5", lambda _: weight)
    head = model.graph.node[-1]
    biased = operator == "Gemm"
    replaced = helper.make_node(
        operator, head.input[: 2 + biased], ["logits"], name="head"
    )
    head.CopyFrom(replaced)
    return model


def with_tail(
    model: ModelProto,
    nodes: list[NodeProto],
    constants: dict[str, NDArray[np.generic] | np.generic],
    *,
    outputs: int = CLASSES,
) -> bytes:
    """The network whose head gives `scores`, which some nodes turn into logits."""
    model.graph.node[-1].output[0] = "scores"
    model.graph.node.extend(nodes)
    for name, value in constants.items():
        tensor = numpy_helper.from_array(np.asarray(value), name)
        model.graph.initializer.append(tensor)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = outputs
    return model.SerializeToString()


# Factors of `scaled`: activations beyond fp16, and weights that are zero in it.
HUGE = {"w2": 16_000, "b2": 16_000, "b3": 16_000, "w4": 1 / 16_000}
VANISHING = {"w5": 1e-8, "b5": 0.0}


def scaled(model: ModelProto, factors: dict[str, float]) -> bytes:
    """The graph with some of its tensors multiplied."""
    for name, factor in factors.items():
        change_constant(model, name, lambda old, by=factor: old * np.float32(by))
    return model.SerializeToString()


# Mean and std of torchvision's networks.
IMAGENET = (np.float32([123.675, 116.28, 103.53]), np.float32([58.4, 57.1, 57.4]))


def normalized_by(mean: np.ndarray, std: np.ndarray) -> bytes:
    """The network with another mean and std, [3] or one for all."""
    model = net()
    for name, value in (("mean3", mean), ("std3", std)):
        column = np.float32(value).reshape(-1, 1, 1)
        change_constant(model, name, lambda _, new=column: new)
    return model.SerializeToString()


def change_constant(
    model: ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Replace a constant by what `change` makes of a copy of it."""
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    value = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def split_into_groups(model: ModelProto, tensor: str, groups: int) -> None:
    """The convolution that writes a tensor reads its inputs in so many groups."""
    conv = producers(model)[tensor]
    conv.attribute.append(helper.make_attribute("group", groups))
    change_constant(
        model, conv.input[1], lambda old: old[:, : old.shape[1] // groups].copy()
    )


def give_out(model: ModelProto, tensor: str) -> None:
    """Make an inner tensor one of the outputs."""
    info = helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None)
    model.graph.output.append(info)


def images(count: int = 64, *, seed: int = 1) -> list[NDArray[np.uint8]]:
    """Smooth images, uint8 [8, H, W, 3] a batch: neighbors are alike, as in life."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3))
    smooth = coarse.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)
    noise = rng.integers(-12, 13, smooth.shape)
    pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    return [pixels[i : i + 8] for i in range(0, count, 8)]
