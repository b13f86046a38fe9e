"""Class-activation maps: where a logit comes from, at no cost to the file."""

import numpy as np
import pytest
from onnx import numpy_helper

from classifier.session import CLASS_MAPS
from tests.training.quantization.nets import CLASSES, images, net
from training.graphs.class_maps import add_class_maps, drop_class_maps
from training.graphs.graph import parse, run, serialize
from training.quantization.float16 import store_weights_as_float16
from training.quantization.quantize import quantize_int8


def make(kind: str) -> bytes:
    graph = net(classes=100).SerializeToString()
    if kind == "int8":
        return quantize_int8(graph, images())
    return graph if kind == "fp32" else store_weights_as_float16(graph, images()).graph


@pytest.mark.parametrize("kind", ["fp32", "stored as fp16", "int8"])
def test_the_mean_of_a_map_is_its_logit_without_the_bias(kind):
    """Pooling and the head are linear, so they may change places."""
    graph = add_class_maps(make(kind))

    logits = run(graph, images())
    maps = run(graph, images(), output=CLASS_MAPS)  # [N, K, h, w]

    bias = next(t for t in net(classes=100).graph.initializer if t.name == "b5")
    summed = maps.mean(axis=(2, 3)) + numpy_helper.to_array(bias)
    # int8 rounds the pooled features once more on the way to the logits
    assert np.abs(summed - logits).max() < (0.2 if kind == "int8" else 1e-4)


@pytest.mark.parametrize("kind", ["fp32", "stored as fp16", "int8"])
def test_maps_share_the_weights_of_the_head(kind):
    """The file grows by some nodes, not by a copy of the largest layer."""
    graph = make(kind)

    assert len(add_class_maps(graph)) - len(graph) < 1500


def test_logits_do_not_change():
    """Another reader of the features must not change how they are computed."""
    graph = make("int8")

    assert np.array_equal(run(add_class_maps(graph), images()), run(graph, images()))


def test_a_network_without_such_a_head_is_left_alone():
    """With an activation between pooling and head, the map would not be the logit."""
    model = net()
    pool = next(n for n in model.graph.node if n.op_type == "GlobalAveragePool")
    pool.op_type = "GlobalMaxPool"
    graph = model.SerializeToString()

    assert add_class_maps(graph) == graph
    assert CLASSES == 5


@pytest.mark.parametrize("kind", ["fp32", "stored as fp16", "int8"])
def test_maps_are_added_once_and_come_off_without_a_trace(kind):
    """Two outputs of one name are no graph; their product is no layer to quantize."""
    graph = serialize(parse(make(kind)))
    explained = add_class_maps(graph)

    assert explained != graph
    assert add_class_maps(explained) == explained
    assert drop_class_maps(explained) == graph
    assert drop_class_maps(graph) == graph
