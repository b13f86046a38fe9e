"""fp32 → int8: the same answers in a quarter of the bytes, the same bytes always."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

from tests.training.quantization.nets import (
    SIDE,
    change_constant,
    images,
    net,
    with_linear_head,
)
from training.graphs.graph import GraphError, parse, run
from training.quantization import quantize
from training.quantization.quantize import (
    QuantizationError,
    measure,
    quantize_int8,
    quantize_measured,
    simplify,
)
from training.quantization.ranges import find_ranges, rounding_error, shrink, watch
from training.quantization.rescue import with_rounded_weights
from training.quantization.rounding import Layer, compensate, examples, find_layers


@pytest.fixture(scope="module")
def fp32() -> bytes:
    return net().SerializeToString()


@pytest.fixture(scope="module")
def int8(fp32) -> bytes:
    return quantize_int8(fp32, images())


def error(one: bytes, other: bytes) -> float:
    """RMS difference of the logits on images that gave no ranges."""
    unseen = images(seed=2)
    return float(np.sqrt(np.mean((run(one, unseen) - run(other, unseen)) ** 2)))


def test_int8_answers_like_fp32(fp32, int8):
    """The error is some hundredths of the spread of the logits."""
    spread = run(fp32, images(seed=2)).std()

    assert error(fp32, int8) < 0.03 * spread


def test_weights_are_signed_bytes_with_a_scale_a_channel(int8):
    """U8S8 per channel: what depthwise networks and VNNI want."""
    weights = {t.name: t for t in parse(int8).graph.initializer}

    assert weights["w1_quantized"].data_type == 3  # int8
    furthest = np.abs(numpy_helper.to_array(weights["w1_quantized"]).astype(int)).max()
    assert furthest == 127  # all eight bits of it
    assert list(weights["w1_scale"].dims) == [16]
    assert weights["r1_zero_point"].data_type == 2  # uint8


def test_logits_are_not_rounded_to_256_levels(int8):
    """Two labels with the same 8-bit logit would tie."""
    assert parse(int8).graph.node[-1].op_type == "Gemm"


def test_an_excluded_layer_stays_in_fp32(fp32):
    """Its weights are floats as before."""
    kept = parse(quantize_measured(measure(fp32, images()), exclude=["dw"]))

    weights = {t.name for t in kept.graph.initializer}
    assert "w1" in weights
    assert "w1_quantized" not in weights


def test_the_same_graph_gives_the_same_bytes_in_every_process(fp32, int8, tmp_path):
    """A bundle's hash stands for how it was made; sets must not order anything."""
    code = (
        "import hashlib; from tests.training.quantization.nets import images, net\n"
        "from training.quantization.quantize import quantize_int8\n"
        "graph = quantize_int8(net().SerializeToString(), images())\n"
        "print(hashlib.sha256(graph).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == hashlib.sha256(int8).hexdigest()


def test_nothing_is_left_in_the_temporary_folder(fp32, tmp_path, monkeypatch):
    """The library writes files; none outlives the call."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    quantize_int8(fp32, images(16))

    assert list(tmp_path.iterdir()) == []


def test_without_images_there_are_no_ranges(fp32):
    """An empty iterable is told apart from a graph that fails."""
    with pytest.raises(GraphError, match="at least one batch"):
        quantize_int8(fp32, [])


def test_images_of_another_size_are_a_graph_error(fp32):
    """ONNX Runtime's own exception does not get through."""
    with pytest.raises(GraphError, match="does not run"):
        quantize_int8(fp32, [np.zeros((1, 9, 9, 3), np.uint8)])


def test_rounding_that_compensates_beats_rounding_to_nearest():
    """On inputs that go together, as those of a network do, the output errs less."""
    rng = np.random.default_rng(0)
    shared = rng.normal(1, 1, (2000, 1))
    x = np.concatenate(
        [shared + 0.3 * rng.normal(size=(2000, 24)), np.ones((2000, 1))], 1
    )
    weight = rng.normal(size=(1, 6, 25))
    scale = np.abs(weight[:, :, :-1]).max(axis=2) / 15  # coarse: it shows more

    integers, bias = compensate(weight, scale, (x.T @ x)[None])

    nearest = np.round(weight[:, :, :-1] / scale[:, :, None])
    exact = x @ weight[0].T

    def off(whole, constant):
        rounded = np.concatenate(
            [whole[0] * scale[0][:, None], constant[0][:, None]], 1
        )
        return float(np.mean((x @ rounded.T - exact) ** 2))

    assert off(integers, bias) < 0.2 * off(nearest, weight[:, :, -1])
    assert np.abs(integers).max() <= 127


def test_the_numbering_of_the_inputs_does_not_change_the_rounding():
    """Inputs are rounded in order of their size, so that a large one comes early."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 13)) @ rng.normal(size=(13, 13)) * np.arange(1, 14)
    x[:, -1] = 1
    weight = rng.normal(size=(1, 6, 13))
    scale = np.abs(weight[:, :, :-1]).max(axis=2) / 15
    new = np.append(rng.permutation(12), 12)  # the bias stays last

    integers, bias = compensate(weight, scale, (x.T @ x)[None])
    other, other_bias = compensate(
        weight[:, :, new], scale, (x[:, new].T @ x[:, new])[None]
    )

    assert np.array_equal(other, integers[:, :, new[:-1]])
    assert np.allclose(other_bias, bias)


def test_what_rounding_leaves_over_goes_into_the_bias(fp32):
    """So that no channel behind a layer is higher on average than in fp32: by less than
    a thousandth of their spread, where it would be twenty times as much.
    """
    measured = measure(fp32, images())
    rounded = with_rounded_weights(
        measured, parse(quantize_measured(measured)), "narrow"
    )

    before, after = (
        np.concatenate([seen["c2"] for seen in watch(model, ["c2"], images())])
        for model in (measured.model, rounded)
    )

    off = (after - before).mean(axis=(0, 2, 3))
    assert np.abs(off).max() < 1e-3 * before.std()


def test_the_examples_of_a_convolution_are_what_it_sees():
    """With strides, dilations and paddings that differ, in two groups: each example
    times the weights is an output of torch's, and all 9 places of an image are there.
    """
    rng = np.random.default_rng(0)
    filters, bias = rng.normal(size=(6, 2, 3, 2)), rng.normal(size=6)
    inputs = rng.normal(size=(3, 4, 5, 7)).astype(np.float32)
    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], group=2, strides=[2, 3], dilations=[1, 2],
        pads=[2, 1, 0, 3],  # top, left, bottom, right
    )  # fmt: skip
    both = np.concatenate([filters.reshape(6, -1), bias[:, None]], axis=1)
    layer = Layer("conv", "x", both.reshape(2, 3, -1), (3, 2), node)

    seen = examples(inputs, layer, np.random.default_rng(1))  # [G, S, D + 1]

    found = np.einsum("gsd,grd->grs", seen, layer.weight).reshape(6, -1)
    padded = functional.pad(torch.tensor(inputs).double(), (1, 3, 2, 0))
    expected = functional.conv2d(
        padded, torch.tensor(filters), torch.tensor(bias), (2, 3), 0, (1, 2), 2
    ).transpose(0, 1).reshape(6, -1)  # fmt: skip
    assert found.shape == (6, 3 * 9)
    assert np.allclose(np.sort(found), np.sort(expected.numpy()), atol=1e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_a_range_is_that_of_all_batches(fp32, order):
    """Of black images and of white ones, whichever come last."""
    black = np.zeros((4, SIDE, SIDE, 3), np.uint8)

    ranges = find_ranges(simplify(fp32), ["x"], [black, 255 - black][::order])

    assert ranges["x"] == pytest.approx((-127 / 128, 1))


@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_that_compensates_stays_within_a_signed_byte(sign):
    """What a weight at the last step would take over goes into the bias."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(2000, 1))
    noise = 0.01 * rng.normal(size=(2000, 2))
    x = np.concatenate([shared * [3, 1] + noise, np.ones((2000, 1))], 1)
    weight = sign * np.array([[[0.4, 127, 0]]])  # 0.4 of the first are 1.2 more here

    integers, _ = compensate(weight, np.ones((1, 1)), (x.T @ x)[None])

    assert integers.tolist() == [[[0, sign * 127]]]


def test_ranges_are_those_of_all_images(fp32, monkeypatch):
    """Rounding and centering look at some of them."""
    every = measure(fp32, images())
    monkeypatch.setattr(quantize, "SOME_IMAGES", 8)

    some = measure(fp32, images())

    assert (len(every.batches), len(some.batches)) == (8, 1)
    assert some.ranges == every.ranges


def test_lone_outliers_do_not_set_the_range():
    """Clipping two values costs less than coarser steps for all the others."""
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    values[:2] = -8.0, 8.0

    low, high = shrink(-8.0, 8.0, values)

    assert -8 < low < -4
    assert 4 < high < 8
    assert rounding_error(low, high, values) < rounding_error(-8.0, 8.0, values)


def test_the_mean_of_each_logit_is_that_of_fp32(fp32, int8):
    """A label that int8 always scores a little higher would win what it should not."""
    shift = run(int8, images()).mean(axis=0) - run(fp32, images()).mean(axis=0)

    spread = run(fp32, images()).std()
    assert np.abs(shift).max() < 1e-3 * spread


def test_the_mean_is_that_of_fp32_where_the_head_stays_in_fp32(fp32):
    """Its bias is a float, and takes all that the layers before it are off by."""
    graph = quantize_measured(measure(fp32, images()), exclude=["head"])

    shift = run(graph, images()).mean(axis=0) - run(fp32, images()).mean(axis=0)

    assert np.abs(shift).max() < 1e-5 * run(fp32, images()).std()


def test_a_range_always_contains_zero():
    """Padding is zero and must be represented exactly."""
    assert shrink(2.0, 6.0, np.full(9, 4, np.float32))[0] == 0
    assert shrink(0.0, 0.0, np.zeros(9, np.float32)) == (0, 0)


def test_a_network_without_a_single_bias_is_quantized():
    """Exporters leave out biases that are zero; then no layer is rounded optimally."""
    model = net()
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            del node.input[2:]
    graph = model.SerializeToString()

    int8 = quantize_int8(graph, images())

    weights = {t.name for t in parse(int8).graph.initializer}
    assert {f"w{n}_quantized" for n in range(6)} <= weights
    expected, found = (run(g, images()) for g in (graph, int8))
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 5), (5,)])
def test_a_bias_may_broadcast(shape, turned):
    """A number, [1] and [1, K] mean what [K] does, and give the same int8 graph.

    Whether the weight is [K, D], as in PyTorch, or [D, K].
    """
    head = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
    graphs = []
    for written in (shape, (5,)):
        model = net() if turned else with_linear_head(head, "Gemm")
        value = np.float32(0.3) if np.prod(shape) == 1 else np.arange(5) / 10
        value = np.broadcast_to(value, written).astype(np.float32).reshape(written)
        change_constant(model, "b5", lambda _, new=value: new)
        graphs.append(quantize_int8(model.SerializeToString(), images()))

    one, other = (run(graph, images(seed=2)) for graph in graphs)
    assert np.array_equal(one, other)


def test_a_graph_without_a_layer_is_refused():
    """An int8 graph of it would be the fp32 one, and called otherwise."""
    model = net(classes=3)
    make = helper.make_node
    del model.graph.node[4:]
    model.graph.node.extend(
        [make("GlobalAveragePool", ["x"], ["g"]), make("Flatten", ["g"], ["logits"])]
    )

    with pytest.raises(QuantizationError, match="no convolution or linear layer"):
        quantize_int8(model.SerializeToString(), images())


@pytest.mark.parametrize("factors", [{"alpha": 0.5}, {"beta": -2.0}, {"beta": 0.0}])
def test_a_gemm_may_multiply_its_weight_and_its_bias(factors):
    """Exporters of old frameworks write so; rounding would take the bias for whole."""
    model = net()
    change_constant(model, "b5", lambda _: np.arange(5, dtype=np.float32) * 5)
    for name, value in factors.items():
        model.graph.node[-1].attribute.append(helper.make_attribute(name, value))
    graph = model.SerializeToString()

    int8 = quantize_int8(graph, images())

    assert error(graph, int8) < 0.03 * run(graph, images(seed=2)).std()
    assert parse(int8).graph.node[-1].op_type == "Gemm"


def test_a_layer_that_has_no_int8_form_stays_in_fp32_alone():
    """ONNX Runtime gives up on transposed convolutions in groups."""
    model = net()
    (depthwise,) = (node for node in model.graph.node if node.name == "dw")
    depthwise.op_type = "ConvTranspose"
    (group,) = (field for field in depthwise.attribute if field.name == "group")
    group.i = 4
    change_constant(model, "w1", lambda weight: weight.repeat(4, axis=1))
    graph = model.SerializeToString()

    int8 = quantize_int8(graph, images())

    weights = {t.name for t in parse(int8).graph.initializer}
    assert "w1" in weights
    assert {f"w{n}_quantized" for n in (2, 3, 4, 5)} <= weights
    assert error(graph, int8) < 0.03 * run(graph, images(seed=2)).std()


def test_a_filter_without_weights_keeps_its_bias():
    """Its step would be 1, and so the bias a whole number of the input's steps."""
    model = net()
    change_constant(model, "mean3", np.zeros_like)
    change_constant(model, "std3", np.ones_like)  # pixels as they are, as in Keras
    half = np.float32(np.arange(16) % 2).reshape(16, 1, 1, 1)
    biases = np.linspace(0.3, 0.45, 16, dtype=np.float32)
    change_constant(model, "w0", lambda weight: weight / np.float32(128) * half)
    change_constant(model, "b0", lambda _: biases)
    graph = model.SerializeToString()

    int8 = quantize_measured(measure(graph, images()))

    values = {t.name: numpy_helper.to_array(t) for t in parse(int8).graph.initializer}
    kept = values["b0_quantized"] * values["b0_quantized_scale"]
    assert np.abs(kept - biases)[::2].max() < 0.01
    scales = values["w0_scale"] * (values["b0_quantized_scale"] / values["w0_scale"])[1]
    assert np.allclose(scales, values["b0_quantized_scale"], rtol=1e-5)
    assert error(graph, int8) < 0.05 * run(graph, images(seed=2)).std()


@pytest.mark.parametrize("turned", [0, 1])
def test_one_weight_may_be_read_along_both_its_axes(turned):
    """As where a decoder has its encoder's weights: each has steps for its outputs."""
    model = net(classes=48)
    rows = np.geomspace(0.01, 1, 48).astype(np.float32)
    square = np.random.default_rng(3).normal(size=(48, 48)).astype(np.float32) / 7
    change_constant(model, "w5", lambda _: square * rows[:, None])
    model.graph.node[-1].output[0] = "scores"
    again = helper.make_node("Gemm", ["scores", "w5", "b5"], ["logits"], transB=turned)
    model.graph.node.append(again)
    graph = model.SerializeToString()

    int8 = quantize_int8(graph, images())

    assert error(graph, int8) < 0.03 * run(graph, images(seed=2)).std()
    names = [t.name for t in parse(int8).graph.initializer]
    written = [n for n in names if n.startswith("w5") and n.endswith("_quantized")]
    assert len(written) == 2 - turned


def test_a_filter_without_weights_that_two_layers_read_keeps_its_bias():
    """Its steps are those of both, and are left as they are."""
    model = net(classes=48)
    square = np.random.default_rng(3).normal(size=(48, 48)).astype(np.float32) / 7
    square[5] = 0
    biases = np.linspace(-0.4, 0.4, 48, dtype=np.float32)
    biases[5] = 0.37
    change_constant(model, "w5", lambda _: square)
    change_constant(model, "b5", lambda _: biases)
    model.graph.node[-1].output[0] = "scores"
    again = helper.make_node("Gemm", ["scores", "w5", "b5"], ["logits"], transB=1)
    model.graph.node.append(again)

    int8 = quantize_measured(measure(model.SerializeToString(), images()))

    assert run(int8, images(seed=2))[:, 5] == pytest.approx(0.37, abs=0.03)


def test_a_gemm_that_turns_its_input_is_no_layer_to_round():
    """Its columns are the examples: ONNX Runtime puts a Transpose into the Gemm."""
    model = net()
    head = model.graph.node[-1]
    model.graph.node.insert(
        len(model.graph.node) - 1,
        helper.make_node("Transpose", ["v"], ["turned"], perm=[1, 0]),
    )
    head.input[0] = "turned"
    head.attribute.append(helper.make_attribute("transA", 1))
    graph = model.SerializeToString()

    layers = [layer.name for layer in find_layers(parse(graph))]

    assert "head" not in layers
    assert len(layers) == 5


def test_a_convolution_over_lines_is_quantized():
    """Its kernel has one side: its windows are not cut out, and its weights rounded
    to nearest."""
    model = net()
    del model.graph.node[-1]
    model.graph.node.extend(
        [
            helper.make_node("Unsqueeze", ["v", "last"], ["line"]),
            helper.make_node("Conv", ["line", "w5", "b5"], ["scores"]),
            helper.make_node("Squeeze", ["scores", "last"], ["logits"]),
        ]
    )
    change_constant(model, "w5", lambda weight: weight[..., None])
    axis = numpy_helper.from_array(np.array([2], np.int64), "last")
    model.graph.initializer.append(axis)
    graph = model.SerializeToString()

    int8 = quantize_int8(graph, images())

    assert error(graph, int8) < 0.05 * run(graph, images(seed=2)).std()


def test_a_convolution_that_pads_by_name_is_rounded_to_nearest():
    """What its windows see at the border is not known here."""
    model = net()
    (depthwise,) = (node for node in model.graph.node if node.name == "dw")
    (pads,) = (field for field in depthwise.attribute if field.name == "pads")
    depthwise.attribute.remove(pads)
    depthwise.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))

    assert "dw" not in [layer.name for layer in find_layers(model)]


def test_what_the_quantizer_cannot_handle_is_an_error_of_its_own(fp32):
    """Here tensors of which no range is known."""
    graph = dataclasses.replace(measure(fp32, images(16)), ranges={})

    with pytest.raises(QuantizationError, match="ONNX Runtime cannot quantize it: "):
        quantize_measured(graph)


def test_values_that_are_not_finite_have_no_range():
    """The tensor is named."""
    model = net()
    change_constant(model, "b2", lambda old: np.full_like(old, np.nan))

    with pytest.raises(GraphError, match="tensor 'c2' are not finite numbers"):
        quantize_int8(model.SerializeToString(), images())
