"""Which layers stay in fp32: those that spare much noise and cost little time."""

import dataclasses
import itertools

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.training.quantization.nets import (
    change_constant,
    images,
    net,
    with_linear_head,
)
from training.graphs.graph import parse
from training.quantization.quantize import Measured, measure, quantize_measured
from training.quantization.rescue import (
    MOST_RESCUED,
    Rounding,
    attempts,
    choose,
    find_roundings,
    saved_by_layer,
    some,
    tensors_between,
    with_rounded_tensor,
    with_rounded_weights,
)


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure(net().SerializeToString(), images())


def whole(graph: Measured) -> onnx.ModelProto:
    """The graph with all layers in int8."""
    return parse(quantize_measured(graph))


def by_weight(graph: Measured) -> dict[str, str]:
    """Name of a layer's weight → the layer's name."""
    nodes = graph.model.graph.node
    return {n.input[1]: n.name for n in nodes if n.name in graph.layers}


def test_every_weight_and_every_tensor_between_layers_is_judged(measured):
    """Sums and their summands belong to no two layers: what is added stays rounded."""
    layer = by_weight(measured)

    found = find_roundings(measured, whole(measured), images(16, seed=3))

    alone = [place.layers for place in found[: len(measured.layers)]]
    assert alone == [frozenset({name}) for name in measured.layers]
    between = {place.layers for place in found[len(measured.layers) :]}
    assert between == {
        frozenset({layer["w0"]}),  # the pixels, which no layer writes
        frozenset({layer["w0"], layer["w1"]}),
        frozenset({layer["w1"], layer["w2"]}),
        frozenset({layer["w5"]}),  # what is pooled is pooled in fp32
    }
    assert all(place.noise >= 0 for place in found)
    assert sum(place.noise > 0 for place in found) >= len(found) - 1  # pixels: exact


def test_the_noise_of_a_place_is_that_of_its_rounding(measured):
    """Coarser steps of one tensor, and only they, make its noise larger."""
    batches = images(16, seed=3)
    ranges = {**measured.ranges}
    (tensor,) = (
        name
        for name, layers in tensors_between(measured).items()
        if layers == {measured.layers[0], measured.layers[1]}
    )
    low, high = ranges[tensor]
    ranges[tensor] = (low, 8 * high)

    coarser = dataclasses.replace(measured, ranges=ranges)
    fine = find_roundings(measured, whole(measured), batches)
    coarse = find_roundings(coarser, whole(coarser), batches)

    grown = [
        b.layers for a, b in zip(fine, coarse, strict=True) if b.noise > 9 * a.noise
    ]
    assert frozenset(measured.layers[:2]) in grown
    # the weights of the two layers are rounded anew for the other steps
    assert set().union(*grown) == set(measured.layers[:2])


def test_a_tensor_that_is_always_zero_loses_nothing(measured):
    """Its range has no width to divide into steps."""
    (tensor, *_) = tensors_between(measured)
    graph = dataclasses.replace(measured, ranges={tensor: (0.0, 0.0)})

    assert with_rounded_tensor(graph, tensor).graph.node


def transposed_convolution() -> onnx.ModelProto:
    """The network with a ConvTranspose from 16 to 12 channels for `narrow`."""
    model = net()
    (narrow,) = (n for n in model.graph.node if n.name == "narrow")
    narrow.op_type = "ConvTranspose"
    change_constant(model, "w2", lambda old: old.transpose(1, 0, 2, 3).copy())
    return model


def linear(operator: str, outputs: int) -> onnx.ModelProto:
    """The network with a head [48, K] whose inputs count the less, the later."""
    weight = np.random.default_rng(0).standard_normal((48, outputs))
    weight *= np.linspace(3, 0.01, 48)[:, None]
    return with_linear_head(weight.astype(np.float32), operator)


@pytest.mark.parametrize(
    ("model", "layer", "name", "axis"),
    [
        (linear("MatMul", 5), "head", "w5", 1),
        (linear("MatMul", 48), "head", "w5", 1),  # either axis would fit
        (linear("Gemm", 5), "head", "w5", 1),
        (transposed_convolution(), "narrow", "w2", 1),
    ],
    ids=["MatMul", "square MatMul", "Gemm", "ConvTranspose"],
)
def test_the_channels_of_a_weight_are_where_its_operator_has_them(
    model, layer, name, axis
):
    """No weight is off by more than half a step of its own channel."""
    graph = measure(model.SerializeToString(), images())

    rounded = with_rounded_weights(graph, whole(graph), layer)

    def weight(of: onnx.ModelProto) -> np.ndarray:
        (tensor,) = (t for t in of.graph.initializer if t.name == name)
        return numpy_helper.to_array(tensor)

    others = tuple({*range(weight(rounded).ndim)} - {axis})
    step = np.abs(weight(graph.model)).max(axis=others, keepdims=True) / 127
    off = np.abs(weight(rounded) - weight(graph.model))
    assert (off <= 0.51 * step).all()
    assert off.max() > 0
    assert len(list(attempts(graph, images(16)))) > 2


def test_the_outputs_of_a_transposed_convolution_are_its_second_axis():
    """One of 1 x 1 saves what the same convolution saves."""
    graphs = [
        measure(model.SerializeToString(), images(16)).model
        for model in (net(), transposed_convolution())
    ]

    plain, transposed = (saved_by_layer(graph)["narrow"] for graph in graphs)

    assert plain == transposed


def test_what_int8_saves_is_counted_from_shapes(measured):
    """Outputs of an image, times products and bytes of each; and the weights."""
    saved = saved_by_layer(measured.model)
    layer = by_weight(measured)

    assert saved[layer["w0"]] == 1 + 8 * 8 * 16 * (27 + 40) + 16 * 27 * 6
    assert saved[layer["w1"]] == 1 + 8 * 8 * 16 * (9 + 40) + 16 * 9 * 6
    assert saved[layer["w4"]] == 1 + 8 * 8 * 48 * (12 + 40) + 48 * 12 * 6
    assert saved[layer["w5"]] == 1 + 5 * (48 + 40) + 5 * 48 * 6


def test_what_spares_most_for_its_cost_is_kept_first():
    """c alone, 9 for 3; then b with c, 4 for 2; then a, whose tensor b shares."""
    places = [
        Rounding(frozenset("c"), 9.0),
        Rounding(frozenset("bc"), 4.0),
        Rounding(frozenset("a"), 1.0),
        Rounding(frozenset("ab"), 2.0),
        Rounding(frozenset("d"), 1.0),
    ]
    saved = {"a": 3.0, "b": 2.0, "c": 3.0, "d": 9.0}

    chosen = list(choose(places, saved, "abcd"))

    assert chosen == [("c",), ("b", "c"), ("a", "b", "c")]  # d alone must be int8


def test_a_tensor_is_not_spared_by_one_of_its_layers():
    """b would be cheap, but without a its tensor stays rounded."""
    places = [
        Rounding(frozenset("a"), 1.0),
        Rounding(frozenset("b"), 0.0),
        Rounding(frozenset("ab"), 100.0),
    ]
    saved = {"a": 50.0, "b": 1.0, "c": 1.0}

    assert next(choose(places, saved, "abc")) == ("a", "b")


def test_no_more_layers_stay_in_fp32_than_leave_some_speed():
    """Forty layers, all equal: eight, one by one, in order of computation."""
    layers = [f"{n:02}" for n in range(40)]
    places = [Rounding(frozenset({layer}), 1.0) for layer in layers]

    chosen = list(choose(places, dict.fromkeys(layers, 1.0), layers))

    assert [len(kept) for kept in chosen] == list(range(1, MOST_RESCUED + 1))
    assert all(list(kept) == sorted(kept) for kept in chosen)


def test_attempts_keep_more_and_more_layers_and_always_quantize_one(measured):
    """None first, then none with finer steps; each set holds the last."""
    first, *tried = [attempt.kept for attempt in attempts(measured, images())]

    assert first == tried[0] == ()
    assert len(tried) > 2
    assert len(tried[-1]) < len(measured.layers)
    for smaller, larger in itertools.pairwise(tried):
        assert set(smaller) < set(larger)


def test_a_graph_without_shapes_can_be_ranked_all_the_same(measured):
    """Shape inference gives up on some imported operators."""
    model = onnx.ModelProto()
    model.CopyFrom(measured.model)
    del model.graph.value_info[:]
    for tensor in model.graph.initializer:  # a layer whose weight is not constant
        if numpy_helper.to_array(tensor).ndim == 4:
            tensor.name += "_elsewhere"

    saved = saved_by_layer(model)

    assert set(measured.layers) <= set(saved)
    assert min(saved.values()) > 0


def test_what_is_spared_already_counts_for_no_other_layer():
    """Else the cheapest layer would come next, whatever it spares."""
    places = [
        Rounding(frozenset({name}), noise)
        for name, noise in {"a": 100.0, "b": 1.0, "c": 40.0}.items()
    ]
    saved = {"a": 1.0, "b": 1.0, "c": 20.0, "d": 1.0}

    first, second, *_ = choose(places, saved, ["a", "b", "c", "d"])

    assert (first, second) == (("a",), ("a", "c"))


@pytest.mark.parametrize(("wanted", "batches"), [(32, 4), (1, 1), (1000, 8)])
def test_some_images_are_spread_over_all(wanted, batches):
    """Batches of eight, from the first on."""
    chosen = some(images(64), wanted)

    assert len(chosen) == batches
    assert np.array_equal(chosen[0], images(64)[0])
