"""Pixels get into an int8 graph the short way, and the logits stay the same."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.training.quantization.nets import (
    IMAGENET,
    SIDE,
    change_constant,
    images,
    net,
    normalized_by,
    scaled,
)
from training.graphs.graph import parse, run
from training.quantization.pixels import (
    feed_pixels,
    find_normalization,
    pixel_range,
)
from training.quantization.quantize import measure, quantize_int8, quantize_measured


def way_in(graph: bytes) -> list[str]:
    """Operators that the pixels meet before the first layer, in order."""
    nodes = parse(graph).graph.node
    tensor, met = "pixels", []
    while True:
        node = next(n for n in nodes if tensor in n.input)
        if node.op_type == "Conv":
            return met
        met.append(node.op_type)
        tensor = node.output[0]


def without_shortcuts(graph: bytes, monkeypatch) -> bytes:
    """What quantization gives if the first nodes are left as they are."""
    with monkeypatch.context() as patched:
        patched.setattr(
            "training.quantization.quantize.feed_pixels", lambda model: None
        )
        return quantize_measured(measure(graph, images()))


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        (127, 128, ["Transpose", "DequantizeLinear"]),
        (33.3, 78.6, ["Transpose", "DequantizeLinear"]),
        (0, 255, ["Transpose", "DequantizeLinear"]),
        (
            *IMAGENET,
            [
                *("Cast", "Reshape", "Sub", "Div", "Reshape", "Transpose"),
                *("QuantizeLinear", "DequantizeLinear"),
            ],
        ),
    ],
)
def test_the_way_in_is_shorter_and_the_logits_are_the_same(
    mean, std, expected, monkeypatch
):
    """One mean and std: bytes stay bytes. Three: long rows instead of short ones."""
    graph = normalized_by(mean, std)

    int8 = quantize_measured(measure(graph, images()))

    assert way_in(int8) == expected
    unseen = [*images(seed=2), *corners()]
    long_way = without_shortcuts(graph, monkeypatch)
    assert (run(int8, unseen) == run(long_way, unseen)).all()


def corners() -> list[np.ndarray]:
    """Images of one value: all 256 of them."""
    values = np.arange(256, dtype=np.uint8)[:, None, None, None]
    return [np.broadcast_to(values, (256, SIDE, SIDE, 3)).copy()]


def test_a_first_layer_in_fp32_keeps_its_normalization():
    """It reads channels first, where the arithmetic is fast."""
    graph = normalized_by(*IMAGENET)
    measured = measure(graph, images())
    (first, *_) = measured.layers

    int8 = quantize_measured(measured, exclude=[first])

    assert way_in(int8) == ["Transpose", "Cast", "Sub", "Div"]


def test_no_pixel_is_cut_off():
    """The range is that of 0 to 255, though no image was white."""
    dark = [batch // 4 for batch in images()]
    graph = normalized_by(*IMAGENET)

    weights = {
        t.name: numpy_helper.to_array(t)
        for t in parse(quantize_int8(graph, dark)).graph.initializer
    }

    (low, high) = pixel_range(parse(graph))["x"]
    assert low == pytest.approx(-123.675 / 58.4)
    assert high == pytest.approx((255 - 103.53) / 57.4)
    scale = next(v for k, v in weights.items() if k == "x_scale")
    assert scale == pytest.approx((high - low) / 255)


def test_the_range_of_the_pixels_has_zero_in_it():
    """What pads the image is zero, and has to be exact."""
    added, taken = (
        pixel_range(parse(normalized_by(mean, 128)))["x"] for mean in (-64, 511)
    )

    assert added == pytest.approx((0, (255 + 64) / 128))
    assert taken == pytest.approx((-511 / 128, 0))


def test_a_normalization_that_adds_and_multiplies_keeps_its_floats(monkeypatch):
    """Elsewhere, both are rounded to 8 bits."""
    model = parse(normalized_by(*IMAGENET))
    for old, new, name, inverse in (
        ("Sub", "Add", "mean3", np.negative),
        ("Div", "Mul", "std3", np.reciprocal),
    ):
        (node,) = (n for n in model.graph.node if n.op_type == old)
        node.op_type = new
        change_constant(model, name, inverse)
    graph = model.SerializeToString()

    int8 = quantize_measured(measure(graph, images()))

    assert way_in(int8)[:4] == ["Cast", "Reshape", "Add", "Mul"]
    assert way_in(without_shortcuts(graph, monkeypatch))[:4] == [
        *("Transpose", "Cast", "Add", "Mul")
    ]


def test_pixels_that_nothing_is_done_to_go_straight_into_the_first_layer():
    """Their range is 0 to 255 as well, though no image was white."""
    model = net()
    for name in ("Sub", "Div"):
        (node,) = (n for n in model.graph.node if n.op_type == name)
        model.graph.node.remove(node)
    stem = next(n for n in model.graph.node if n.op_type == "Conv")
    stem.input[0] = "f"
    graph = scaled(model, {"w0": 1 / 128})
    dark = [batch // 4 for batch in images()]

    int8 = quantize_measured(measure(graph, dark))

    assert way_in(int8) == ["Transpose", "DequantizeLinear"]
    before, after = (run(g, images(seed=2)) for g in (graph, int8))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("change", ["layout", "type", "two readers", "none"])
def test_other_first_nodes_are_left_alone(change):
    """Imported networks may begin in any way; none of them is touched."""
    model = net()
    transpose, cast = model.graph.node[:2]
    if change == "layout":
        transpose.attribute[0].ints[:] = [0, 3, 2, 1]
    elif change == "type":
        cast.attribute[0].i = onnx.TensorProto.DOUBLE
    elif change == "two readers":
        model.graph.node.append(helper.make_node("Shape", ["pixels"], ["size"]))
    before = model.SerializeToString()

    feed_pixels(model)

    assert (find_normalization(model) is None) is (change != "none")
    assert model.SerializeToString() == before  # nothing is quantized here


def test_constants_that_are_not_one_number_a_channel_end_the_normalization():
    """A mean image [3, H, W] is subtracted pixel by pixel: no table says that."""
    model = net()
    picture = np.full((3, SIDE, SIDE), 127, np.float32)
    change_constant(model, "mean3", lambda _: picture)

    found = find_normalization(model)

    assert found is not None
    assert found.arithmetic == []
    assert pixel_range(model) == {"f": (0, 255)}  # before the subtraction
