"""Nodes have an order and names, whatever they came with."""

import itertools
import random

import pytest
from onnx import ModelProto, helper

from training.graphs.graph import GraphError, name_nodes, sort_nodes


def chain(length: int) -> ModelProto:
    """`x0` → `x1` → … by nodes that are named after what they give."""
    nodes = [
        helper.make_node("Relu", [f"x{n}"], [f"x{n + 1}"], name=f"x{n + 1}")
        for n in range(length)
    ]
    return helper.make_model(helper.make_graph(nodes, "chain", [], []))


def names(model: ModelProto) -> list[str]:
    """Of its nodes, in order."""
    return [node.name for node in model.graph.node]


def test_nodes_stand_behind_what_they_read():
    """However they were shuffled; a long chain takes no longer than its length."""
    model = chain(20_000)
    ordered, nodes = names(model), list(model.graph.node)
    random.Random(0).shuffle(nodes)  # noqa: S311
    del model.graph.node[:]
    model.graph.node.extend(nodes)

    sort_nodes(model)

    assert names(model) == ordered


def test_an_order_that_is_right_stays():
    """Branches are not mixed: the same graph gives the same bytes."""
    make = helper.make_node
    nodes = [
        make("Relu", ["x"], ["a"], name="a"),
        make("Relu", ["a"], ["b"], name="b"),
        make("Relu", ["x"], ["c"], name="c"),
        make("Relu", ["c"], ["d"], name="d"),
        make("Add", ["b", "d"], ["logits"], name="sum"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "branches", [], []))

    sort_nodes(model)

    assert names(model) == ["a", "b", "c", "d", "sum"]


def test_a_circle_is_named_by_one_of_its_nodes():
    """No order would do."""
    model = chain(3)
    model.graph.node[1].input.append("x3")

    with pytest.raises(GraphError, match="a cycle at node 'x2'"):
        sort_nodes(model)


def test_each_node_has_a_name_of_its_own():
    """A layer is left in fp32 by its name."""
    model = chain(4)
    for node, name in zip(model.graph.node, ("", "same", "same", ""), strict=True):
        node.name = name

    name_nodes(model)

    assert len(set(names(model))) == 4
    assert all(names(model))
    assert names(model)[1] == "same"
    assert not any(a == b for a, b in itertools.pairwise(names(model)))
