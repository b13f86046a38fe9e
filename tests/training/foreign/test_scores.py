"""Logits or probabilities: what the graph shows, and what is said of it."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.training.foreign.importing import (
    answer,
    ending_in,
    expected_input,
    shrunk,
)
from tests.training.foreign.strangers import (
    probability_map,
    scores_of,
    stranger,
)
from tests.training.quantization.nets import change_constant
from training.errors import AnswerError
from training.foreign.findings import examine
from training.foreign.questions import MissingFactsError
from training.graphs.graph import GraphError


def test_the_logarithm_of_a_softmax_does_not_go_with_labels_that_may_both_hold(
    importer,
):
    """Its constant is undone by a softmax, and not by the sigmoids of multi-label."""
    model = ending_in(stranger(), helper.make_node("LogSoftmax", ["l"], ["logits"]))

    with pytest.raises(AnswerError, match="logarithm of a softmax over 4 scores"):
        importer(model, task="multilabel", threshold="0.5")
    scores = answer(importer(model), shrunk())

    given = expected_input(shrunk(), "NCHW", "float32")
    raw = scores_of(model.SerializeToString(), given)[0]
    assert np.allclose(scores, np.exp(raw), atol=1e-4)


def hidden_sigmoid(classes: int) -> onnx.ModelProto:
    """A stranger whose scores went through a sigmoid that no last node gives away."""
    return ending_in(
        stranger(classes=classes),
        helper.make_node("Sigmoid", ["l"], ["p"]),
        helper.make_node("Sqrt", ["p"], ["root"]),
        helper.make_node("Mul", ["root", "root"], ["logits"]),
    )


@pytest.mark.parametrize(("classes", "task"), [(1, "binary"), (4, "multilabel")])
def test_a_sigmoid_among_other_nodes_is_undone(importer, classes, task):
    """Said to be probabilities, they stay the stranger's."""
    model = hidden_sigmoid(classes)

    classifier = importer(
        model, labels=max(2, classes), task=task, threshold="0", output="probabilities"
    )

    given = expected_input(shrunk(), "NCHW", "float32")
    raw = scores_of(model.SerializeToString(), given)[0]
    logits = classifier.session.run(shrunk()[None])[0]
    assert 1 / (1 + np.exp(-logits)) == pytest.approx(raw, abs=1e-5)


def test_a_probability_of_exactly_0_or_1_has_a_logit(importer):
    """The logarithm of 0 is none: the first such answer would be an error."""
    model = hidden_sigmoid(4)
    change_constant(model, "bias", lambda _: np.float32([200, -200, 0, 0]))

    classifier = importer(
        model, task="multilabel", threshold="0", output="probabilities"
    )

    scores = answer(classifier, shrunk())
    assert scores[:2] == pytest.approx([1, 0], abs=1e-6)
    assert np.isfinite(classifier.session.run(shrunk()[None])).all()


@pytest.mark.parametrize(("classes", "task"), [(1, "binary"), (4, "multiclass")])
def test_sigmoids_called_logits_are_noticed(importer, classes, task):
    """Of a sigmoid a sigmoid would be at least a half: every answer would be yes."""
    model = hidden_sigmoid(classes)
    threshold = "0.5" if task == "binary" else None

    with pytest.raises(GraphError, match="as after a sigmoid"):
        importer(
            model,
            labels=max(2, classes),
            task=task,
            threshold=threshold,
            output="logits",
        )


@pytest.mark.parametrize("logit", [0.5, 1])
def test_a_linear_layer_may_give_logits_from_0_to_1(importer, logit):
    """Of a network that knows little, on one photo; the graph shows what they are."""
    model = stranger(classes=1)
    change_constant(model, "head", lambda old: old * 0)
    change_constant(model, "bias", lambda old: old * 0 + logit)

    assert importer(model, labels=2, task="binary", threshold="0.5")


def test_logits_of_several_labels_are_not_believed_to_lie_from_0_to_1(importer):
    """The layer that is shown may end a network below a sigmoid that nobody knows."""
    model = stranger()
    change_constant(model, "head", lambda old: old * 0)
    change_constant(model, "bias", lambda old: old * 0 + 0.5)

    with pytest.raises(GraphError, match="as after a sigmoid"):
        importer(model, task="multilabel", threshold="0.5")


def test_probabilities_called_logits_are_noticed(importer):
    """A softmax over probabilities would flatten every score."""
    with pytest.raises(GraphError, match=r"sum to 1: they are probabilities"):
        importer(stranger(tail="hidden"), output="logits")


def test_logits_called_probabilities_are_noticed(importer):
    """The last node hides what it is; the values do not."""
    model = stranger(tail="hidden")
    del model.graph.node[-2:]
    model.graph.node.append(helper.make_node("Neg", ["logits"], ["scores"]))

    with pytest.raises(GraphError, match="said to be probabilities"):
        importer(model, output="probabilities")


def test_shares_that_lack_a_part_are_no_softmax(importer):
    """The label that the labels file forgot may have had it."""
    model = stranger(tail="hidden")
    model.graph.node[-1].output[0] = "whole"
    model.graph.node.append(helper.make_node("Mul", ["whole", "most"], ["scores"]))
    most = numpy_helper.from_array(np.float32(0.95), "most")
    model.graph.initializer.append(most)

    with pytest.raises(GraphError, match="of an image do not sum to 1"):
        importer(model, output="probabilities")


@pytest.mark.parametrize("then", ["mean", "layer"])
@pytest.mark.parametrize(
    ("activation", "task"), [("Sigmoid", "multilabel"), ("Softmax", "multiclass")]
)
def test_the_mean_of_a_map_of_probabilities_is_no_logit(
    importer, activation, task, then
):
    """It is asked about, and said to be probabilities it keeps the stranger's."""
    model = probability_map(activation, then=then)
    said = {"task": task, "threshold": "0.5" if task == "multilabel" else None}

    with pytest.raises(MissingFactsError) as refusal:
        importer(model, **said)
    with pytest.raises(GraphError, match=r"0\.\.1"):
        importer(model, output="logits", **said)
    scores = answer(importer(model, output="probabilities", **said), shrunk())

    given = expected_input(shrunk(), "NCHW", "float32")
    assert [question.option for question in refusal.value.questions] == ["--output"]
    assert np.allclose(
        scores, scores_of(model.SerializeToString(), given)[0], atol=1e-4
    )


def test_the_mean_of_a_map_of_logits_is_a_logit():
    """Pooling bounds nothing: what stands before it says what the scores are."""
    model = probability_map("Identity", then="mean")

    [output] = examine(model).outputs

    assert output.logits


@pytest.mark.parametrize(
    ("classes", "tail", "said"),
    [
        (2, "softmax", {"task": "multilabel", "threshold": "0.5"}),
        (4, "sigmoid", {}),
        (2, "sigmoid", {"task": "binary", "threshold": "0.5"}),
        (1, "softmax", {"task": "binary", "threshold": "0.5"}),
        (1, "logits", {}),
    ],
)
def test_an_activation_of_another_task_is_refused(importer, classes, tail, said):
    """One of several labels is a softmax; each for itself, a sigmoid."""
    labels = 2 if "threshold" in said else classes

    with pytest.raises(AnswerError, match="which does not go with the task"):
        importer(stranger(classes=classes, tail=tail), labels=labels, **said)


@pytest.mark.parametrize(
    "nodes",
    [
        [
            ("QuantizeLinear", ["plain", "step", "zero"], ["steps"]),
            ("DequantizeLinear", ["steps", "step", "zero"], ["scores"]),
        ],
        [("Unsqueeze", ["plain", "axes"], ["scores"])],
    ],
    ids=["quantized", "unsqueezed"],
)
def test_logits_are_seen_through_what_does_not_bound_them(nodes):
    """A quantizer ends its graphs so, and nothing need be asked."""
    model = stranger()
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.extend(helper.make_node(*node) for node in nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in {
            "step": np.float32(0.1),
            "zero": np.int8(0),
            "axes": np.array([2]),
        }.items()
    )
    model.graph.output[0].name = "scores"

    [output] = examine(model).outputs

    assert output.logits


def test_a_sum_of_scores_is_asked_about():
    """One of the summands alone does not say what it holds."""
    model = ending_in(
        stranger(),
        helper.make_node("Sigmoid", ["l"], ["p"]),
        helper.make_node("Add", ["l", "p"], ["logits"]),
    )

    (output,) = examine(model).outputs

    assert not output.logits


@pytest.mark.parametrize("operator", ["Relu", "GlobalAveragePool"])
def test_a_bare_relu_at_the_end_is_asked_about(operator):
    """Below a mean it is how SqueezeNet ends; alone, only its author knows."""
    model = probability_map("Relu", then="mean")
    if operator == "Relu":
        (averaging,) = [n for n in model.graph.node if n.op_type == "GlobalAveragePool"]
        averaging.op_type = "GlobalMaxPool"

    (output,) = examine(model).outputs

    assert output.logits is (operator == "GlobalAveragePool")
