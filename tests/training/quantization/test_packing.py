"""Pixels in packs of four: the same integers, whatever the first layer looks like."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.training.quantization.nets import (
    IMAGENET,
    SIDE,
    give_out,
    images,
    net,
    normalized_by,
)
from training.graphs.graph import parse, producers, run, serialize
from training.quantization.packing import TOGETHER, find_first, pack_pixels
from training.quantization.quantize import measure, quantize_int8, quantize_measured

HEIGHT = 10


def first_layer(  # noqa: PLR0913 - what a convolution is made of
    *,
    width: int,
    channels: int = 3,
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (2, 2),
    pads: tuple[int, int, int, int] = (0, 0, 1, 1),
    group: int = 1,
    dilations: tuple[int, int] = (1, 1),
    activation: str | None = "Relu",
) -> bytes:
    """Pixels in 8 bits → one quantized convolution → its outputs, flat, as logits."""
    rng = np.random.default_rng(0)
    filters = 6
    shape = (filters, channels // group, *kernel)
    values = {
        "scale": np.float32(1 / 128),
        "zero": np.uint8(127),
        "w": rng.integers(-127, 128, shape).astype(np.int8),
        "w_scale": rng.uniform(0.001, 0.02, filters).astype(np.float32),
        "w_zero": np.zeros(filters, np.int8),
        "b": rng.integers(-9000, 9000, filters).astype(np.int32),
        "b_zero": np.zeros(filters, np.int32),
        "out": np.float32(0.05),
        "out_zero": np.uint8(0 if activation else 128),
    }
    values["b_scale"] = values["w_scale"] * values["scale"]
    make = helper.make_node
    nodes = [
        make("Transpose", ["pixels"], ["t"], perm=[0, 3, 1, 2]),
        make("DequantizeLinear", ["t", "scale", "zero"], ["x"]),
        make("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wf"], axis=0),
        make("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bf"], axis=0),
        make(
            "Conv",
            ["x", "wf", "bf"],
            ["c"],
            name="first",
            kernel_shape=list(kernel),
            strides=list(strides),
            pads=list(pads),
            group=group,
            dilations=list(dilations),
        ),
        make(activation or "Identity", ["c"], ["r"], name="activation"),
        make("QuantizeLinear", ["r" if activation else "c", "out", "out_zero"], ["q"]),
        make("DequantizeLinear", ["q", "out", "out_zero"], ["y"]),
        make("Flatten", ["y"], ["logits"]),
    ]
    if not activation:
        del nodes[5]
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()]
    pixels = helper.make_tensor_value_info(
        "pixels", TensorProto.UINT8, ["N", HEIGHT, width, channels]
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", None])
    graph = helper.make_graph(nodes, "first", [pixels], [logits], weights)
    imports = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return model.SerializeToString()


def seen(width: int, channels: int = 3) -> list[np.ndarray]:
    shape = (2, HEIGHT, width, channels)
    return [np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)]


def is_packed(graph: bytes) -> bool:
    return any(node.op_type == "Reshape" for node in parse(graph).graph.node)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 7)),
    strides=st.tuples(st.integers(1, 2), st.sampled_from([1, 2, 4])),
    pads=st.tuples(*[st.integers(0, 5)] * 4),
    channels=st.sampled_from([1, 2, 3, 5]),
    packs=st.integers(2, 5),
    activation=st.sampled_from(["Relu", None]),
)
def test_the_answers_stay_to_the_bit(
    kernel, strides, pads, channels, packs, activation
):
    """Wherever outputs and strides fit into a row; elsewhere nothing happens."""
    width = TOGETHER * packs
    graph = first_layer(
        width=width,
        channels=channels,
        kernel=kernel,
        strides=strides,
        pads=pads,
        activation=activation,
    )

    packed = pack_pixels(graph)

    made = (width + pads[1] + pads[3] - kernel[1]) // strides[1] + 1
    assert is_packed(packed) is (made * strides[1] == width)
    onnx.checker.check_model(parse(packed), full_check=True)
    pixels = seen(width, channels)
    assert np.array_equal(run(packed, pixels), run(graph, pixels))


@pytest.mark.parametrize(
    ("kernel", "stride", "before", "after"),
    [
        (3, 2, 0, 1),
        (3, 2, 1, 1),
        (3, 1, 1, 1),
        (7, 2, 3, 3),
        (4, 4, 0, 0),
        (5, 1, 2, 2),
    ],
    ids=["Lite0", "MobileNet", "same", "ResNet", "patches", "five"],
)
def test_the_first_layers_of_known_networks_are_packed(kernel, stride, before, after):
    graph = first_layer(
        width=24,
        kernel=(kernel, kernel),
        strides=(stride, stride),
        pads=(before, before, after, after),
    )

    packed = pack_pixels(graph)

    first = find_first(parse(packed))
    assert first is None  # pixels go into a Reshape now
    (conv,) = (n for n in parse(packed).graph.node if n.op_type == "Conv")
    weight = producers(parse(packed))[conv.input[1]].input[0]
    (dims,) = (t.dims for t in parse(packed).graph.initializer if t.name == weight)
    assert dims[:2] == [6 * TOGETHER // stride, 3 * TOGETHER]
    assert np.array_equal(run(packed, seen(24)), run(graph, seen(24)))


def fp32_first() -> bytes:
    """The first layer is kept in fp32: the pixels are normalized in front of it."""
    graph = measure(net().SerializeToString(), images())
    return quantize_measured(graph, exclude=[graph.layers[0]])


def read_elsewhere() -> bytes:
    model = parse(first_layer(width=16))
    give_out(model, "c")
    return serialize(model)


def pixels_read_elsewhere() -> bytes:
    """By another branch, for which they are no packs."""
    model = parse(first_layer(width=16))
    cast = helper.make_node("Cast", ["t"], ["floats"], to=TensorProto.FLOAT)
    model.graph.node.append(cast)
    give_out(model, "floats")
    return serialize(model)


def not_rounded() -> bytes:
    """What the first layer gives stays in fp32."""
    model = parse(first_layer(width=16))
    flatten = producers(model)["logits"]
    flatten.input[0] = "r"
    return serialize(model)


def padded_by_name() -> bytes:
    model = parse(first_layer(width=16))
    conv = producers(model)["c"]
    for field in [f for f in conv.attribute if f.name == "pads"]:
        conv.attribute.remove(field)
    conv.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))
    return serialize(model)


def computed_weight() -> bytes:
    model = parse(first_layer(width=16))
    dequantize = producers(model)["wf"]
    same = helper.make_node("Identity", ["w"], ["w_same"], name="same")
    dequantize.input[0] = "w_same"
    model.graph.node.insert(0, same)
    return serialize(model)


def turned() -> bytes:
    """A network that was trained on images lying on their side: [N, C, W, H]."""
    model = parse(first_layer(width=HEIGHT + 2))
    transpose = producers(model)["t"]
    transpose.attribute[0].ints[:] = [0, 3, 2, 1]
    return serialize(model)


@pytest.mark.parametrize(
    "graph",
    [
        turned(),
        fp32_first(),
        read_elsewhere(),
        pixels_read_elsewhere(),
        not_rounded(),
        padded_by_name(),
        computed_weight(),
        first_layer(width=16, channels=4),
        first_layer(width=18),
        first_layer(width=16, strides=(2, 3)),
        first_layer(width=16, group=3),
        first_layer(width=16, dilations=(1, 2)),
        first_layer(width=16, pads=(0, 0, 0, 0)),
        first_layer(width=16, activation="Sigmoid"),
    ],
    ids=[
        "turned",
        "fp32",
        "read elsewhere",
        "pixels read elsewhere",
        "not rounded",
        "padded by name",
        "computed weight",
        "four channels",
        "odd width",
        "stride of three",
        "groups",
        "dilations",
        "fewer outputs",
        "another activation",
    ],
)
def test_what_does_not_fit_is_left_as_it_is(graph):
    assert pack_pixels(graph) == graph


def test_a_whole_network_answers_as_before():
    """From its fp32 graph to int8, with the packs in front."""
    fp32 = net().SerializeToString()
    plain = quantize_measured(measure(fp32, images()))

    packed = quantize_int8(fp32, images())

    assert is_packed(packed)
    reshapes = [n for n in parse(packed).graph.node if n.op_type == "Reshape"]
    assert len(reshapes) == 2
    assert np.array_equal(run(packed, images(seed=4)), run(plain, images(seed=4)))
    assert pack_pixels(packed) == packed


def test_pixels_that_are_normalized_in_rows_are_packed_too():
    """Three means: the pixels are rounded behind their Transpose."""
    plain = quantize_measured(measure(normalized_by(*IMAGENET), images()))

    packed = pack_pixels(plain)

    onnx.checker.check_model(parse(packed), full_check=True)
    assert packed != plain
    assert find_first(parse(packed)) is None
    assert np.array_equal(run(packed, images(seed=4)), run(plain, images(seed=4)))


def test_packing_gives_the_same_bytes_each_time():
    graph = first_layer(width=SIDE)

    assert pack_pixels(graph) == pack_pixels(graph) != graph
