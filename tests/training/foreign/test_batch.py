"""A graph for one image becomes one for any number of them."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.training.foreign.importing import ending_in, expected_input, shrunk
from tests.training.foreign.strangers import SIDE, photo, scores_of, stranger
from training.graphs.graph import GraphError


def test_a_batch_fixed_in_a_reshape_is_freed(importer):
    """The example's batch of 1 stands in input and Reshape; many images fit after."""
    classifier = importer(stranger(batch=1, fixed_reshape=True))

    pixels = np.stack([photo(n, SIDE) for n in range(5)])
    together = classifier.session.run(pixels)

    alone = np.concatenate([classifier.session.run(p[None]) for p in pixels])
    assert np.allclose(together, alone, atol=1e-5)


def test_a_graph_bound_to_its_batch_is_refused(importer):
    """A squeezed batch cannot come back; the refusal says what to do."""
    model = stranger(batch=1)
    nodes = model.graph.node
    index = next(i for i, node in enumerate(nodes) if node.op_type == "Relu")
    nodes[index].output[0] = "r1"
    axes = onnx.numpy_helper.from_array(np.array([0]), "axes")
    model.graph.initializer.append(axes)
    nodes.insert(index + 1, helper.make_node("Squeeze", ["r1", "axes"], ["r2"]))
    nodes.insert(index + 2, helper.make_node("Unsqueeze", ["r2", "axes"], ["r"]))

    with pytest.raises(GraphError, match="batch"):
        importer(model)


@pytest.mark.parametrize("axes", [[0], [0, 2, 3]])
def test_a_graph_that_mixes_the_images_of_a_batch_is_refused(importer, axes):
    """One photo is enough to see it: a batch norm that was exported in training."""
    model = stranger()
    nodes = model.graph.node
    place = next(i for i, node in enumerate(nodes) if node.op_type == "Relu")
    nodes[place].input[0] = "centered"
    model.graph.initializer.append(numpy_helper.from_array(np.array(axes), "axes"))
    nodes.insert(place, helper.make_node("ReduceMean", ["c", "axes"], ["mean"]))
    nodes.insert(place + 1, helper.make_node("Sub", ["c", "mean"], ["centered"]))

    with pytest.raises(GraphError, match="bound to its batch"):
        importer(model)


def test_an_answer_of_a_whole_batch_is_refused(importer):
    """Its one row would be compared with each of the others."""
    model = stranger()
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
    mean = helper.make_node("ReduceMean", ["l", "axes"], ["logits"])

    with pytest.raises(GraphError, match=r"4 images give logits \[1, 4\]"):
        importer(ending_in(model, mean), output="logits")


def test_a_graph_for_a_batch_of_several_is_compared_image_by_image(importer):
    """The original runs on copies of each."""
    model = stranger(batch=3)
    pixels = np.stack([photo(n, SIDE) for n in range(3)])

    logits = importer(model).session.run(pixels)

    given = np.concatenate([expected_input(p, "NCHW", "float32") for p in pixels])
    assert np.allclose(logits, scores_of(model.SerializeToString(), given), atol=1e-3)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_less_than_one_is_a_dynamic_one(importer, batch):
    """So some exporters write it."""
    classifier = importer(stranger(batch=batch))

    assert len(classifier.session.run(np.stack([shrunk()] * 3))) == 3


def test_of_a_fixed_batch_only_what_hangs_on_pixels_is_freed(importer):
    """A bias of its own is reshaped to [1, K] too, and that 1 is no batch."""
    model = stranger(batch=1, fixed_reshape=True)
    row = numpy_helper.from_array(np.array([1, 4]), "row")
    model.graph.initializer.append(row)
    model.graph.node[-1].input[1] = "row of biases"
    reshape = helper.make_node("Reshape", ["bias", "row"], ["row of biases"])
    model.graph.node.insert(0, reshape)
    inferred = onnx.shape_inference.infer_shapes(model)  # says [1, …] everywhere

    classifier = importer(inferred, output="logits")

    pixels = np.stack([photo(n, SIDE) for n in range(3)])
    assert classifier.session.run(pixels).shape == (3, 4)


def test_a_reshape_that_means_zero_by_0_is_freed_as_well(importer):
    """PyTorch says so of each, whether there is a 0 in its shape or not."""
    model = stranger(batch=1, fixed_reshape=True)
    (reshape,) = [n for n in model.graph.node if n.op_type == "Reshape"]
    reshape.attribute.append(helper.make_attribute("allowzero", 1))

    classifier = importer(model)

    pixels = np.stack([photo(n, SIDE) for n in range(3)])
    assert classifier.session.run(pixels).shape == (3, 4)
