"""Class-activation maps: where a logit comes from, at no cost to the file."""

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from classifier.session import CLASS_MAPS
from tests.training.quantization.nets import (
    CLASSES,
    SIDE,
    change_constant,
    images,
    net,
    with_linear_head,
)
from training.graphs.class_maps import add_class_maps, drop_class_maps
from training.graphs.graph import add_constant, parse, run, serialize
from training.quantization.float16 import store_weights_as_float16, to_float16
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


def assert_means_are_logits(
    model: ModelProto, bias: float | np.ndarray = 0.0, *, wide: int = 1
) -> np.ndarray:
    """Each map's mean is its logit without the bias, and its size is declared.

    Returns the maps of images that are so many times as wide as they are high.
    """
    graph = add_class_maps(model.SerializeToString())
    pixels = [np.concatenate([batch] * wide, axis=2) for batch in images()]

    maps = run(graph, pixels, output=CLASS_MAPS)
    logits = run(graph, pixels)
    assert np.abs(maps.mean(axis=(2, 3)) + bias - logits).max() < 1e-4
    (declared,) = [o for o in parse(graph).graph.output if o.name == CLASS_MAPS]
    dims = declared.type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims[1:]] == list(maps.shape[1:])
    return maps


def test_the_maps_of_wide_images_are_wide():
    """Rows taken for columns would have the same means."""
    model = net()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2 * SIDE
    (bias,) = (t for t in model.graph.initializer if t.name == "b5")

    maps = assert_means_are_logits(model, numpy_helper.to_array(bias), wide=2)

    assert maps.shape[2:] == (SIDE // 2, SIDE)


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_a_head_may_hold_its_weights_the_other_way_round(operator):
    """[C, K], as Keras has them."""
    weight = np.random.default_rng(3).normal(size=(48, 7)).astype(np.float32)
    model = with_linear_head(weight, operator)
    (bias,) = (t for t in model.graph.initializer if t.name == "b5")

    biased = operator == "Gemm"
    assert_means_are_logits(model, numpy_helper.to_array(bias) if biased else 0.0)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", ["initializer", "Constant"])
def test_a_bias_may_stand_behind_the_head(kind, first):
    """As a MatMul has it, on either side; it belongs to no place."""
    weight = np.random.default_rng(3).normal(size=(48, 7)).astype(np.float32)
    model = with_linear_head(weight, "MatMul")
    model.graph.node[-1].output[0] = "product"
    (bias,) = (t for t in model.graph.initializer if t.name == "b5")
    summands = ["product", "b5"]
    if kind == "Constant":
        summands[1] = "bias"
        model.graph.node.append(helper.make_node("Constant", [], ["bias"], value=bias))
    if first:
        summands.reverse()
    model.graph.node.append(helper.make_node("Add", summands, ["logits"]))

    assert_means_are_logits(model, numpy_helper.to_array(bias))


def averaged_over(axes: list[int], *, opset: int = 20) -> ModelProto:
    """The network with a mean over some axes in place of its pooling."""
    model = net()
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    (pool,) = (n for n in model.graph.node if n.op_type == "GlobalAveragePool")
    pool.op_type = "ReduceMean"
    if opset < 18:
        pool.attribute.append(helper.make_attribute("axes", axes))
    else:
        pool.input.append("axes")
        tensor = numpy_helper.from_array(np.array(axes), "axes")
        model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-2, -1]])
def test_a_mean_over_height_and_width_is_a_pooling(axes, opset):
    """Its axes are an attribute until operator set 17, and an input since 18."""
    model = averaged_over(axes, opset=opset)
    (bias,) = (t for t in model.graph.initializer if t.name == "b5")

    assert_means_are_logits(model, numpy_helper.to_array(bias))


def rectified() -> ModelProto:
    """The network with a ReLU behind its pooling."""
    model = net()
    (pool,) = (n for n in model.graph.node if n.op_type == "GlobalAveragePool")
    pool.output[0] = "pooled"
    place = list(model.graph.node).index(pool) + 1
    relu = helper.make_node("Relu", ["pooled"], ["g"])
    model.graph.node.insert(place, relu)
    return model


def doubled() -> ModelProto:
    """The network whose head doubles its product."""
    model = net()
    model.graph.node[-1].attribute.append(helper.make_attribute("alpha", 2.0))
    return model


def weighted() -> ModelProto:
    """The network whose scores are its features, each with a weight of its own."""
    model = net(classes=48)
    change_constant(model, "w5", lambda weight: weight[0])
    del model.graph.node[-1]
    model.graph.node.append(helper.make_node("Mul", ["v", "w5"], ["logits"]))
    return model


def of_the_highest() -> ModelProto:
    """The network with the highest of each channel in place of its pooling."""
    model = averaged_over([2, 3])
    (pool,) = (n for n in model.graph.node if n.op_type == "ReduceMean")
    pool.op_type = "ReduceMax"
    return model


def of_two_heads() -> ModelProto:
    """The network whose logits are the sum of two linear layers."""
    model = net()
    head = model.graph.node[-1]
    head.output[0] = "one"
    model.graph.node.extend(
        [
            helper.make_node("Gemm", ["v", "w5"], ["two"], transB=1, alpha=0.5),
            helper.make_node("Add", ["one", "two"], ["logits"]),
        ]
    )
    return model


def of_any_size() -> ModelProto:
    """The network for images of open height and width, whose maps have no size."""
    model = net()
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    return model


def of_two_images() -> ModelProto:
    """The network whose head reads the features of two images of the batch at once."""
    model = net()
    change_constant(model, "w5", lambda weight: np.concatenate([weight, weight], 1))
    (flatten,) = (n for n in model.graph.node if n.op_type == "Flatten")
    flatten.op_type = "Reshape"
    del flatten.attribute[:]
    flatten.input.append(add_constant(model, "both", np.array([-1, 96], np.int64)))
    return model


@pytest.mark.parametrize(
    "make",
    [
        rectified,
        doubled,
        weighted,
        of_the_highest,
        of_two_heads,
        of_two_images,
        of_any_size,
    ],
)
def test_what_stands_between_a_map_and_its_logit_leaves_a_graph_without(make):
    """The mean of the map would be another number."""
    graph = make().SerializeToString()

    assert add_class_maps(graph) == graph


def test_the_head_of_an_fp16_graph_is_not_found():
    """Maps are float32, and what a GPU would add up in fp16 is not."""
    graph = to_float16(net().SerializeToString())

    assert add_class_maps(graph) == graph


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
