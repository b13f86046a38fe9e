"""Copies of channels: the same answers in fp32, and finer steps in int8."""

import dataclasses
import itertools

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from tests.training.quantization.nets import (
    change_constant,
    give_out,
    images,
    net,
    split_into_groups,
)
from training.graphs.graph import parse, producers, rewire, run, serialize
from training.quantization.copies import (
    BLOCK,
    copy_channels,
    count_copies,
    find_spot,
)
from training.quantization.quantize import (
    Measured,
    measure,
    quantize_measured,
    simplify,
    with_finer_steps,
)
from training.quantization.ranges import watch
from training.quantization.rescue import (
    Rounding,
    attempts,
    with_finer_worst,
    with_rounded_tensor,
    with_rounded_weights,
)
from training.quantization.rounding import compensate, compensate_copies

STEP = 6 / 255
EDGE = 3  # the channel of `sharp` whose filter looks for edges


def sharp(*, lift: float = 0.0) -> ModelProto:
    """The network in which a channel is smooth and its filter takes differences.

    With `lift`, the filter does not quite sum up to zero.
    """
    model = net()
    edge = np.full((1, 3, 3), lift)
    edge[0, 1] = 40 * np.array([-1, 2, -1])
    # the stem has a mean of all it sees, never below 0 nor above 6
    for name, value in (("w0", 0.3 / 27), ("b0", 3.0), ("w1", edge)):

        def put(old: np.ndarray, value: float | np.ndarray = value) -> np.ndarray:
            old[EDGE] = value
            return old

        change_constant(model, name, put)
    return model


@pytest.fixture(scope="module")
def edges() -> Measured:
    return measure(sharp().SerializeToString(), images())


def noise(model: bytes, reference: bytes) -> float:
    seen = images(32, seed=9)
    return float(np.mean(np.var(run(model, seen) - run(reference, seen), axis=0)))


def test_the_answers_stay_in_fp32(edges):
    """What moving by fractions of a step changes is far less than rounding does."""
    reference = serialize(edges.model)
    copied = copy_channels(edges.model, "r0", step=STEP)

    onnx.checker.check_model(copied.model, full_check=True)
    assert copied.channels == BLOCK
    rounded = with_rounded_tensor(edges, "r0").SerializeToString()
    assert noise(serialize(copied.model), reference) < 0.05 * noise(rounded, reference)


def test_each_copy_says_the_same_where_nothing_is_cut():
    """Also where a filter does not sum up to zero."""
    model = simplify(sharp(lift=1.0).SerializeToString())
    copied = copy_channels(model, "r0", step=STEP)
    filters = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    times = count_copies(filters["w1"], filters["w2"])
    channel = np.repeat(np.arange(16), times)
    checked = set()

    one = watch(model, ["r0", "c1"], images())
    other = watch(copied.model, ["c1"], images())
    for before, after in zip(one, other, strict=True):
        smooth = (before["r0"] > STEP) & (before["r0"] < 6 - STEP)
        windows = np.lib.stride_tricks.sliding_window_view(smooth, (3, 3), axis=(2, 3))
        free = windows.all(axis=(4, 5))[:, channel]  # places inside, not at the border
        inside = before["c1"][:, channel, 1:-1, 1:-1][free]
        assert np.abs(after["c1"][:, :, 1:-1, 1:-1][free] - inside).max() < 1e-3
        checked |= set(channel[free.any(axis=(0, 2, 3))].tolist())

    assert EDGE in checked
    assert times[EDGE] > 4


def test_the_graph_that_came_is_left_alone(edges):
    before = edges.model.SerializeToString(deterministic=True)

    copy_channels(edges.model, "r0", step=STEP)

    assert edges.model.SerializeToString(deterministic=True) == before


def test_what_an_edge_costs_is_spared(edges):
    """Of the noise of the rounded tensor less than a quarter is left, and in int8
    most of it all."""
    reference = serialize(edges.model)
    finer = with_finer_steps(edges, ["r0"])

    before, after = (
        noise(with_rounded_tensor(graph, "r0").SerializeToString(), reference)
        for graph in (edges, finer)
    )
    assert after < before / 4
    before, after = (
        noise(quantize_measured(graph), reference) for graph in (edges, finer)
    )
    assert after < before / 2
    assert finer.copies == BLOCK


def test_the_worst_channel_gets_most_copies():
    """Noise as 16, 1, 1 and none; twelve copies fill the block of sixteen."""
    filters = np.array([4.0, 1.0, 1.0, 0.0], np.float32).reshape(4, 1, 1, 1)

    times = count_copies(filters, np.ones((2, 4, 1, 1), np.float32))

    assert times.sum() == BLOCK
    assert times[3] == 1
    assert times[0] > times[1] == times[2]


def test_no_other_copies_would_leave_less_noise():
    """Of all ways to compute four channels sixteen times, each multiplied by filters
    and by what reads them.
    """
    filters, read = np.ones((4, 1, 3, 3), np.float32), np.ones((5, 4, 1, 1), np.float32)
    filters *= np.sqrt([1, 2, 5, 10]).reshape(4, 1, 1, 1)
    read *= np.sqrt([1, 1, 10, 10]).reshape(1, 4, 1, 1)

    times = count_copies(filters, read)

    noise = np.array([1, 2, 50, 100])
    ways = itertools.product(range(1, BLOCK), repeat=4)
    least = min((noise / np.square(w)).sum() for w in ways if sum(w) == BLOCK)
    assert (noise / times**2).sum() == pytest.approx(least)


def test_copies_lie_around_their_channel():
    """On one side of it, they would be cut sooner where it is cut."""
    model = simplify(sharp().SerializeToString())
    copied = copy_channels(model, "r0", step=STEP)
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
        for m in (model, copied.model)
    )
    times = count_copies(before["w1"], before["w2"])

    moved = after["b0_copied"] - np.repeat(before["b0"], times)

    ends = np.cumsum(times)
    for k, piece in zip(times, np.split(moved, ends[:-1]), strict=True):
        assert piece.mean() == pytest.approx(0, abs=1e-6)
        assert np.diff(piece) == pytest.approx(np.full(k - 1, STEP / k), rel=1e-3)


@pytest.mark.parametrize(("channels", "filled"), [(16, 32), (17, 32), (24, 32)])
def test_copies_fill_a_block(channels, filled):
    filters = np.ones((channels, 1, 3, 3), np.float32)

    times = count_copies(filters, np.ones((2, channels, 1, 1), np.float32))

    assert times.sum() == filled


def with_node(model: ModelProto, operator: str, tensor: str) -> None:
    """An operator between a tensor and what read it."""
    rewire(model.graph.node, tensor, "between")
    new = helper.make_node(operator, [tensor], ["between"], name="between")
    model.graph.node.append(new)


def read_twice(model: ModelProto) -> None:
    copy = helper.make_node("Relu", ["r0"], ["seen"], name="second")
    model.graph.node.append(copy)
    give_out(model, "seen")


def other_activation(model: ModelProto) -> None:
    """What is added in front of it is not what comes out."""
    (clip,) = (n for n in model.graph.node if n.output[0] == "r0")
    clip.op_type = "Sigmoid"
    del clip.input[1:]


def pooled(model: ModelProto) -> None:
    with_node(model, "GlobalAveragePool", "r1")


def grouped_reader(model: ModelProto) -> None:
    split_into_groups(model, "c2", 4)


def two_filters_each(model: ModelProto) -> None:
    for name, axis in (("w1", 0), ("b1", 0), ("w2", 1)):
        change_constant(model, name, lambda old, at=axis: old.repeat(2, axis=at))


def without_bias(model: ModelProto) -> None:
    del producers(model)["c1"].input[2]


def given_out(model: ModelProto) -> None:
    give_out(model, "r0")


def read_before_the_cut(model: ModelProto) -> None:
    give_out(model, "c0")


def grouped_writer(model: ModelProto) -> None:
    """A depthwise convolution of its own in front of the activation."""
    with_node(model, "Conv", "c0")
    new = model.graph.node[-1]
    new.input.extend(["w1", "b1"])
    new.attribute.append(helper.make_attribute("group", 16))


@pytest.mark.parametrize(
    "change",
    [
        read_twice,
        other_activation,
        pooled,
        grouped_reader,
        two_filters_each,
        without_bias,
        given_out,
        read_before_the_cut,
        grouped_writer,
    ],
    ids=lambda change: change.__name__,
)
def test_only_what_is_known_is_copied(change):
    """Convolution, depthwise convolution, dense convolution, and nothing else."""
    model = simplify(net().SerializeToString())
    assert find_spot(model, "r0") is not None

    change(model)

    assert find_spot(model, "r0") is None
    assert copy_channels(model, "r0", step=STEP) is None


@pytest.mark.parametrize("tensor", ["r1", "c2", "x", "a", "r4", "no tensor"])
def test_other_tensors_are_not_between_such_layers(tensor):
    assert find_spot(simplify(net().SerializeToString()), tensor) is None


def test_copies_make_up_for_each_other():
    """Four equal filters rounded together: their mean is off by far less than one."""
    rng = np.random.default_rng(0)
    weight = np.repeat(rng.standard_normal((1, 1, 10)), 4, axis=0)
    scale = np.full((4, 1), np.abs(weight[..., :-1]).max() / 127)
    x = rng.standard_normal((1, 500, 10)) + 2
    gram = np.repeat(x.transpose(0, 2, 1) @ x, 4, axis=0)

    def error(rounded) -> float:
        integers, left = rounded(weight, scale, gram)
        values = np.concatenate([integers * scale[..., None], left[..., None]], axis=2)
        off = (values - weight).mean(axis=0)[0]
        return float(off @ gram[0] @ off)

    assert error(compensate_copies) < error(compensate) / 8
    integers, _ = compensate_copies(weight, scale, gram)
    assert np.array_equal(integers, np.round(integers))
    assert np.abs(integers).max() <= 127


def test_each_copy_is_rounded_for_what_it_reads_itself():
    """A group of its own in a depthwise layer: another in front changes nothing."""
    rng = np.random.default_rng(0)
    weight = np.concatenate([rng.normal(size=(1, 1, 10)), np.ones((2, 1, 10)) * 0.37])
    seen = rng.normal(size=(3, 50, 10)) * [[[9]], [[1]], [[1]]]
    scale, gram = np.full((3, 1), 0.1), seen.transpose(0, 2, 1) @ seen

    integers, left = compensate_copies(weight, scale, gram)

    alone = compensate_copies(weight[1:], scale[1:], gram[1:])
    assert np.array_equal(integers[1:], alone[0])
    assert np.array_equal(left[1:], alone[1])


def test_where_no_weights_are_equal_copies_change_nothing():
    rng = np.random.default_rng(0)
    weight, scale = rng.standard_normal((3, 2, 6)), np.full((3, 2), 0.02)
    x = rng.standard_normal((3, 50, 6))
    gram = x.transpose(0, 2, 1) @ x

    one, other = compensate(weight, scale, gram), compensate_copies(weight, scale, gram)

    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_finer_steps_are_tried_before_fp32(edges):
    """All in int8; with copies; and then with layers in fp32, copies as before."""
    tried = list(attempts(edges, images(32, seed=5)))

    assert [(a.copies, a.kept) for a in tried[:2]] == [(0, ()), (BLOCK, ())]
    assert all(a.copies == BLOCK for a in tried[2:])
    assert len(tried) > 3
    reference = serialize(edges.model)
    assert noise(tried[1].graph, reference) < noise(tried[0].graph, reference) / 2


def test_what_costs_little_is_not_copied(edges):
    """Under a twentieth of all noise, or in no such place."""
    little = [Rounding(frozenset("a"), 96.0), Rounding(frozenset("b"), 4.0, "r0")]
    much = [Rounding(frozenset("a"), 94.0), Rounding(frozenset("b"), 6.0, "r0")]
    elsewhere = [Rounding(frozenset("b"), 6.0, "c2")]
    none = [Rounding(frozenset("b"), 0.0, "r0")]

    assert with_finer_worst(edges, much).copies == BLOCK
    for places in (little, elsewhere, none):
        assert with_finer_worst(edges, places) is edges


def test_the_filters_of_copies_are_rounded_together(edges):
    """What their weights alone cost is less than where each is rounded for itself."""
    finer = with_finer_steps(edges, ["r0"])
    reference = serialize(finer.model)

    def lost(graph: Measured) -> float:
        int8 = parse(quantize_measured(graph))
        model = with_rounded_weights(graph, int8, "dw")
        return noise(model.SerializeToString(), reference)

    assert finer.copied == ("dw",)
    assert lost(finer) < lost(dataclasses.replace(finer, copied=())) / 2
