"""Nothing is rounded to 8 bits behind the last layer of a graph."""

import numpy as np
import pytest
from onnx import helper

from tests.training.quantization.nets import CLASSES, images, net, with_tail
from training.graphs.graph import parse, producers, run
from training.quantization.ends import normalization_nodes, tail_nodes
from training.quantization.quantize import (
    measure,
    quantize_int8,
    quantize_measured,
    simplify,
)

make = helper.make_node


def reshaped() -> bytes:
    """As import ends each graph."""
    nodes = [make("Reshape", ["scores", "shape"], ["logits"])]
    return with_tail(net(), nodes, {"shape": np.array([-1, CLASSES])})


def difference() -> bytes:
    """An import of two classes: one logit."""
    nodes = [
        make("Reshape", ["scores", "shape"], ["two"]),
        make("MatMul", ["two", "sign"], ["logits"]),
    ]
    constants = {
        "shape": np.array([-1, 2]),
        "sign": np.array([[-1], [1]], np.float32),
    }
    return with_tail(net(classes=2), nodes, constants, outputs=1)


def detector() -> bytes:
    """Some classes against the rest, as `export --positive` ends a graph."""
    nodes = []
    for part in ("some", "rest"):
        nodes += [
            make("Gather", ["scores", part], [f"{part}_scores"], axis=1),
            make("ReduceLogSumExp", [f"{part}_scores", "axis"], [f"{part}_sum"]),
        ]
    nodes.append(make("Sub", ["some_sum", "rest_sum"], ["logits"]))
    constants = {
        "some": np.array([1, 3]),
        "rest": np.array([0, 2, 4]),
        "axis": np.array([1]),
    }
    return with_tail(net(), nodes, constants, outputs=1)


def undone_sigmoid() -> bytes:
    """An import whose sigmoid could not be cut off."""
    nodes = [
        make("Sigmoid", ["scores"], ["p"]),
        make("Clip", ["p", "least", "most"], ["clipped"]),
        make("Reciprocal", ["clipped"], ["inverse"]),
        make("Sub", ["inverse", "one"], ["odds"]),
        make("Log", ["odds"], ["negative"]),
        make("Neg", ["negative"], ["logits"]),
    ]
    constants = {
        "least": np.float32(1e-7),
        "most": np.float32(1 - 1e-7),
        "one": np.float32(1),
    }
    return with_tail(net(), nodes, constants)


@pytest.mark.parametrize("graph", [reshaped, difference, detector, undone_sigmoid])
def test_what_follows_the_last_layer_keeps_its_floats(graph):
    """The head sums up into floats, and these become logits as they do in fp32."""
    fp32 = graph()

    int8 = quantize_int8(fp32, images())

    made_by = producers(parse(int8))
    met, waiting = set(), ["logits"]
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.name != "head":
            met.add(node.op_type)
            waiting += node.input
    assert not met & {"QuantizeLinear", "DequantizeLinear"}
    before, after = (run(g, images(seed=2)) for g in (fp32, int8))
    assert np.isfinite(after).all()
    assert np.std(after - before) < 0.05 * before.std()
    assert len(np.unique(after)) > 0.9 * len(np.unique(before))


def test_a_reshape_behind_the_head_changes_no_logit():
    """The mean error is taken off the bias in front of it as well."""
    plain, longer = (
        quantize_int8(g, images()) for g in (net().SerializeToString(), reshaped())
    )

    assert np.array_equal(run(plain, images(seed=2)), run(longer, images(seed=2)))


def test_a_graph_that_ends_in_its_head_has_no_tail():
    """Then it is quantized from the first layer to the last."""
    assert tail_nodes(simplify(net().SerializeToString())) == []


def test_only_what_stands_in_front_of_the_first_layer_normalizes():
    """Behind it, activations and sums are quantized."""
    model = simplify(net().SerializeToString())

    front = normalization_nodes(model)

    operators = [node.op_type for node in model.graph.node if node.name in front]
    assert operators == ["Transpose", "Cast", "Sub", "Div"]


def test_a_layer_whose_weight_is_computed_from_constants_is_one():
    """Such as one that is turned round first."""
    model = net()
    head = model.graph.node.pop()
    turned = make("Transpose", ["w5"], ["turned"], perm=[1, 0], name="turn")
    last = make("MatMul", ["v", "turned"], ["logits"], name="head")
    model.graph.node.extend([turned, last])

    assert head.name not in tail_nodes(model)


def test_the_difference_of_two_logits_is_no_layer():
    """With two constants it is nothing that could stay in fp32 to save another."""
    measured = measure(difference(), images(16))

    assert measured.layers[-1] == "head"
    assert quantize_measured(measured, exclude=["head"])
