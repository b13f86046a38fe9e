"""A stranger's file becomes a bundle that gives the stranger's answers."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from classifier.manifest import Label, Task
from tests.training.foreign.importing import (
    SAID,
    answer,
    expected_input,
    png,
    shrunk,
    softmax,
)
from tests.training.foreign.strangers import (
    SIDE,
    scores_of,
    stranger,
)
from tests.training.quantization.nets import change_constant
from training.errors import AnswerError
from training.foreign.answers import Answers, parse_answers
from training.foreign.findings import examine
from training.foreign.questions import Known, MissingFactsError, open_questions
from training.graphs.graph import GraphError


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("tail", ["logits", "softmax", "square", "hidden"])
def test_the_bundle_gives_the_strangers_probabilities(
    importer, layout, dtype, tail, batch
):
    """Layout, type, batch and head are the stranger's; the answer is the same."""
    model = stranger(layout=layout, dtype=dtype, tail=tail, batch=batch)
    said = {"output": "probabilities"} if tail == "hidden" else {}
    if dtype == "uint8":
        said |= {"scale": None, "mean": None, "std": None}

    scores = answer(importer(model, **said), shrunk())

    inputs = expected_input(shrunk(), layout, dtype)
    raw = scores_of(model.SerializeToString(), inputs)[0]
    wanted = raw if tail in ("softmax", "hidden") else softmax(raw)
    assert np.allclose(scores, wanted, atol=5e-3 if dtype == "float16" else 1e-4)


@pytest.mark.parametrize(
    ("classes", "tail"), [(1, "logits"), (1, "sigmoid"), (2, "logits"), (2, "softmax")]
)
def test_a_binary_head_of_one_or_two_scores_becomes_one_probability(
    importer, classes, tail
):
    """Two logits say the same as their difference; the second label is the positive."""
    model = stranger(classes=classes, tail=tail)

    classifier = importer(model, labels=2, task="binary", threshold="0.5")

    raw = scores_of(
        model.SerializeToString(), expected_input(shrunk(), "NCHW", "float32")
    )[0]
    if classes == 2:
        wanted = raw[1] if tail == "softmax" else softmax(raw)[1]
    else:
        wanted = raw[0] if tail == "sigmoid" else 1 / (1 + np.exp(-raw[0]))
    prediction = classifier.classify(png(shrunk())).predictions[0]
    assert prediction.label == "label 1"
    assert prediction.score == pytest.approx(wanted, abs=1e-5)


def test_sigmoids_over_many_labels_are_a_multilabel_bundle(importer):
    """The task follows from the graph; the thresholds are the user's."""
    model = stranger(tail="sigmoid")

    classifier = importer(model, task=None, threshold="0.1,0.2,0.3,0.4")

    raw = scores_of(
        model.SerializeToString(), expected_input(shrunk(), "NCHW", "float32")
    )[0]
    assert classifier.manifest.task == "multilabel"
    assert classifier.manifest.postprocess.thresholds == (0.1, 0.2, 0.3, 0.4)
    assert np.allclose(answer(classifier, shrunk()), raw, atol=1e-5)


def test_a_bgr_network_sees_blue_first(importer):
    """Mean and std are given in the network's order, so blue's come first."""
    model = stranger()

    scores = answer(importer(model, color="bgr"), shrunk())

    reversed_pixels = np.ascontiguousarray(shrunk()[..., ::-1])
    inputs = expected_input(reversed_pixels, "NCHW", "float32")
    raw = scores_of(model.SerializeToString(), inputs)[0]
    assert np.allclose(scores, softmax(raw), atol=1e-4)
    assert not np.allclose(scores, answer(importer(model), shrunk()), atol=1e-2)


def test_white_may_be_255_before_mean_and_std(importer):
    """Keras subtracts from 0..255, torchvision from 0..1."""
    model = stranger()

    scores = answer(importer(model, scale="255"), shrunk())

    inputs = expected_input(shrunk(), "NCHW", "float32", white=255)
    raw = scores_of(model.SerializeToString(), inputs)[0]
    assert np.allclose(scores, softmax(raw), atol=1e-4)


def test_an_old_operator_set_is_converted_and_a_newer_one_kept(importer):
    """Below 13 some operators mean other things; from 13 on nothing is gained."""
    kept = importer(stranger(opset=13))
    model = stranger(opset=11)

    converted = importer(model)

    graphs = [
        onnx.load(str(next(c.bundle.folder.glob("*.onnx")))) for c in (kept, converted)
    ]
    assert [g.opset_import[0].version for g in graphs] == [13, 20]


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_weights_among_the_inputs_are_no_inputs(importer, opset):
    """Up to IR version 3 they had to be declared there, as in most of the ONNX zoo."""
    model = stranger(opset=opset, ir_version=3)

    scores = answer(importer(model), shrunk())

    inputs = expected_input(shrunk(), "NCHW", "float32")
    raw = scores_of(model.SerializeToString(), inputs)[0]
    assert np.allclose(scores, softmax(raw), atol=1e-4)


def test_keras_preprocessing_can_be_named(importer):
    """A preset is a name for four facts, and what is said beside it wins."""
    named = importer(stranger(), preset="keras--1..1", scale=None, mean=None, std=None)
    spelled = importer(stranger(), scale="255", mean="127.5", std="127.5")

    assert np.allclose(answer(named, shrunk()), answer(spelled, shrunk()), atol=1e-6)
    assert parse_answers({"preset": "torchvision", "std": "1"}).std == (1.0,)


def test_everything_that_nobody_said_is_asked_at_once(importer):
    """One refusal lists all that is missing, so that one more try is enough."""
    nothing = dict.fromkeys(SAID)

    with pytest.raises(MissingFactsError) as refusal:
        importer(stranger(), **nothing, labels=4)

    options = {question.option for question in refusal.value.questions}
    assert options == {
        "--color",
        "--scale",
        "--mean",
        "--std",
        "--resize",
        "--interpolation",
        "--task",
    }


@pytest.mark.parametrize("fact", sorted(SAID))
def test_no_fact_is_guessed(importer, fact):
    """Leaving out any one fact asks for that one, and for nothing else."""
    with pytest.raises(MissingFactsError) as refusal:
        importer(stranger(), **{fact: None})

    option = "--" + fact.replace("_", "-")
    assert [question.option for question in refusal.value.questions] == [option]


@pytest.mark.parametrize(
    ("resize", "asked"), [("crop", "--short-side"), ("pad", "--background")]
)
def test_what_a_way_of_resizing_needs_is_asked_with_it(importer, resize, asked):
    """A white border where training had a black one is a guess like any other."""
    with pytest.raises(MissingFactsError) as refusal:
        importer(stranger(), resize=resize)

    assert [question.option for question in refusal.value.questions] == [asked]


def test_an_input_that_leaves_layout_and_size_open_is_asked_about(importer):
    """[N, ?, ?, ?] may be anything."""
    model = stranger()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]:
        dim.ClearField("dim_value")

    with pytest.raises(MissingFactsError) as refusal:
        importer(model)
    classifier = importer(model, layout="NCHW", size=f"{SIDE}x{SIDE}")

    asked = {question.option for question in refusal.value.questions}
    assert asked == {"--layout", "--size"}
    assert classifier.manifest.preprocess.height == SIDE


@pytest.mark.parametrize(
    ("sides", "layout"),
    [
        ((3, 224, 224), "NCHW"),
        ((224, 224, 3), "NHWC"),
        ((1, 28, 28), "NCHW"),
        ((28, 28, 1), "NHWC"),
        ((3, None, None), "NCHW"),
        ((None, None, 3), "NHWC"),
        ((3, None, 224), "NCHW"),
        ((224, None, 3), "NHWC"),
        ((3, 224, None), None),
        ((None, 224, 3), None),
        ((3, 224, 3), None),
        ((1, 28, 3), None),
        ((None, None, None), None),
    ],
)
def test_the_layout_is_known_where_one_place_alone_can_hold_channels(sides, layout):
    """An image of 3 rows and columns would be no image; elsewhere it is asked."""
    model = stranger()
    dims = model.graph.input[0].type.tensor_type.shape.dim[1:]
    for dim, side in zip(dims, sides, strict=True):
        dim.Clear()
        if side is not None:
            dim.dim_value = side

    assert examine(model).layout == layout


def test_what_holds_no_score_a_class_is_no_choice_of_output():
    """Features, and the scores of one image that have lost its place in the batch."""
    model = stranger()
    kind = onnx.TensorProto.FLOAT
    for name, dims in (("c", ["N", 4, 4, 4]), ("first", [4])):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, dims))

    assert [output.name for output in examine(model).outputs] == ["logits"]


def test_scores_whose_shape_the_file_leaves_out_are_counted():
    """It can be inferred."""
    model = stranger()
    model.graph.output[0].type.tensor_type.ClearField("shape")

    (output,) = examine(model).outputs

    assert output.classes == 4


def test_of_several_outputs_one_must_be_named(importer):
    """A training graph may have auxiliary heads."""
    model = stranger()
    model.graph.node.append(helper.make_node("Neg", ["logits"], ["aux"]))
    model.graph.output.append(
        helper.make_tensor_value_info("aux", onnx.TensorProto.FLOAT, ["N", 4])
    )

    with pytest.raises(MissingFactsError, match="--output-name"):
        importer(model)
    assert importer(model, output_name="logits").manifest.task == "multiclass"
    with pytest.raises(AnswerError, match="no output 'head'; there are: logits, aux"):
        importer(model, output_name="head")


@pytest.mark.parametrize(
    ("classes", "tail", "group", "task"),
    [
        (1, "logits", None, Task.BINARY),
        (2, "softmax", None, None),  # binary, or two classes
        (3, "softmax", None, Task.MULTICLASS),
        (3, "softmax", "birds", Task.FINE_GRAINED),
        (2, "sigmoid", None, None),
        (3, "sigmoid", None, Task.MULTILABEL),
        (3, "logits", None, None),
    ],
)
def test_a_task_is_known_where_scores_and_labels_leave_one(classes, tail, group, task):
    """Else it is asked."""
    names = "abc"[: max(2, classes)]
    labels = tuple(Label(id=name, name=name, group=group) for name in names)

    known = Known(examine(stranger(classes=classes, tail=tail)), Answers(labels=labels))

    assert known.task == task


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"layout": "NHWC"}, "shows NCHW"),
        ({"size": "9x9"}, "height"),
        ({"size": "8x8x8"}, "size is '8x8x8'; HxW, or one number"),
        ({"size": "x"}, "size is 'x'"),
        ({"task": "multilabel", "threshold": "0.5,0.5"}, "multilabel 1 or 4 are"),
        ({"color": "gray"}, "channels"),
        ({"output": "probabilities"}, "output: probabilities was given, .* logits"),
        ({"mean": "1,2"}, "mean has 2 numbers"),
        ({"std": "0"}, "std"),
        ({"std": "0.2,-0.2,0.2"}, "std is .*; every number must be above 0"),
        ({"scale": "7"}, "scale"),
        ({"mean": "nan"}, "finite"),
        ({"mean": "x"}, "numbers"),
        ({"color": "pink"}, "pink"),
        ({"task": "binary", "threshold": "0.5"}, "1 or 2 scores"),
        ({"threshold": "0.5"}, "threshold"),
        ({"resize": "crop", "short_side": "3"}, "possible: short_side is 3"),
        ({"short_side": "9"}, "short_side must be null when resize is 'squash'"),
        ({"resize": "pad", "background": "1.5,2,3,4"}, "three numbers"),
        ({"resize": "pad", "background": "1.5,2,3"}, "three numbers"),
        ({"preset": "caffe3"}, "caffe3"),
        ({"labels": 5}, "5 labels"),
        ({"top_k": "9"}, "made of this: top_k is 9"),
        ({"task": "fine-grained"}, "group"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(importer, said, complaint):
    """Contradictions are told at once and name what is wrong."""
    with pytest.raises(AnswerError, match=complaint):
        importer(stranger(), **said)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"mean": "1,2,3"}, "mean has 3 numbers; 1 is needed"),
        ({"threshold": "0.5,0.5"}, "2 thresholds were given; for binary 1 is needed"),
    ],
)
def test_a_single_number_is_all_that_one_channel_or_one_score_takes(
    importer, said, complaint
):
    """Of a gray image, and of yes or no."""
    model = stranger(classes=1)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    change_constant(model, "kernel", lambda old: old[:, :1])
    given = {"task": "binary", "threshold": "0.5", "mean": "0", "std": "1"}

    with pytest.raises(AnswerError, match=complaint):
        importer(model, labels=2, color=None, **{**given, **said})


def test_what_a_graph_of_bytes_does_by_itself_is_not_said_of_it(importer):
    """The normalization would be taken for done, and is not."""
    message = "--scale, --mean, --std was given, but the graph takes uint8"
    with pytest.raises(AnswerError, match=message):
        importer(stranger(dtype="uint8"))


def test_an_activation_that_is_shown_is_no_logit(importer):
    """Whatever is said."""
    with pytest.raises(AnswerError, match=r"logits was given, .* shows probabilities"):
        importer(stranger(tail="softmax"), output="logits")


@pytest.mark.parametrize(("layout", "axis"), [("NCHW", 3), ("NHWC", 2)])
def test_height_and_width_are_told_apart(layout, axis):
    """The smaller one comes first here, as height does in a shape."""
    model = stranger(layout=layout)
    model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 12

    assert Known(examine(model), Answers()).size == (8, 12)


def test_of_an_input_that_says_nothing_only_what_was_not_said_is_asked(importer):
    """A color too: that of an unknown number of channels is not gray."""
    model = stranger()
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.Clear()

    with pytest.raises(MissingFactsError) as refusal:
        importer(model, size="8x8", color=None)

    layout, color = refusal.value.questions
    assert (layout.option, color.option) == ("--layout", "--color")
    assert color.choices == "rgb|bgr|gray"


def test_the_labels_of_yes_and_no_are_asked_for_as_two():
    """Of a network with one score, which has a name for each side of it."""
    answers = parse_answers({**SAID, "task": "binary", "threshold": "0.5"})

    [question] = open_questions(examine(stranger(classes=1)), answers)

    assert question.option == "--labels"
    assert question.why == "the names of the 2 labels, negative first"


def gray_stranger() -> ModelProto:
    """A network of one channel."""
    model = stranger()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    change_constant(model, "kernel", lambda old: old[:, :1])
    return model


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_an_order_of_colors_is_none_of_a_gray_image(importer, color):
    """It would be left out, and something else may have been meant."""
    with pytest.raises(AnswerError, match=r"channels: 3 was given, .* shows 1"):
        importer(gray_stranger(), color=color, mean="0", std="1")


@pytest.mark.parametrize(
    ("mean", "std"), [("0,9,0", "1,1,1"), ("0,0,0", "1,2,1"), ("0", "1")]
)
def test_a_channel_may_need_no_normalization(importer, mean, std):
    """What is left out for all channels is left out only where none needs it."""
    model = stranger(dtype="float32")
    change_constant(model, "kernel", lambda old: old / 200)  # for what goes to 255

    classifier = importer(model, scale="255", mean=mean, std=std)

    numbers = [np.float32(text.split(",")) for text in (mean, std)]
    given = (shrunk().astype(np.float32) - numbers[0]) / numbers[1]
    raw = scores_of(model.SerializeToString(), given.transpose(2, 0, 1)[None])[0]
    assert classifier.session.run(shrunk()[None])[0] == pytest.approx(raw, abs=1e-3)


def test_images_of_four_channels_are_refused(importer):
    """Nothing is asked first: no answer would help."""
    model = stranger()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    change_constant(model, "kernel", lambda old: np.concatenate([old, old[:, :1]], 1))

    with pytest.raises(GraphError, match=r"\[\?, 4, 8, 8\] is no image: .* 1 or 3"):
        importer(model)


def test_answers_start_with_nothing_said():
    """No field of the answers has a value of its own."""
    assert set(vars(Answers()).values()) == {None}
