"""A stranger's file becomes a bundle that gives the stranger's answers."""

import itertools
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from classifier import Classifier
from tests.training.foreign.strangers import (
    SIDE,
    photo,
    probability_map,
    scores_of,
    stranger,
)
from tests.training.quantization.nets import change_constant
from training.errors import AnswerError
from training.foreign.answers import Answers, parse_answers
from training.foreign.bundle import Origin, import_graph
from training.foreign.findings import examine
from training.foreign.questions import MissingFactsError
from training.foreign.source import read_graph
from training.graphs.graph import GraphError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SAID = {
    "scale": "1",
    "mean": "0.5,0.4,0.3",
    "std": "0.2,0.25,0.3",
    "color": "rgb",
    "resize": "squash",
    "interpolation": "bilinear",
    "task": "multiclass",
}


@pytest.fixture
def importer(tmp_path):
    """Import a graph with some answers; returns the loaded bundle."""
    sample = tmp_path / "sample.png"
    Image.fromarray(photo(1)).save(sample)
    counter = itertools.count()

    def run(model, labels=4, samples=(sample,), **said) -> Classifier:
        path = tmp_path / "stranger.onnx"
        path.write_bytes(model.SerializeToString())
        names = tmp_path / "labels.txt"
        names.write_text("\n".join(f"label {n}" for n in range(labels)))
        given = {**SAID, "labels": str(names), **said}
        answers = parse_answers({k: v for k, v in given.items() if v is not None})
        name = f"s{next(counter)}"
        origin = Origin(path, name, "A stranger.", "MIT", "a test", "linnaeus import")
        folder = import_graph(
            read_graph(path), answers, origin, samples=samples, models=tmp_path
        )
        return Classifier.load(folder, device="cpu")

    return run


def expected_input(pixels, layout: str, dtype: str, *, white=1.0):
    """Normalization as the stranger's trainer did it, [1, …]."""
    image = pixels
    if dtype != "uint8":
        image = ((pixels * (white / 255) - np.array(MEAN)) / np.array(STD)).astype(
            dtype
        )
    return (image.transpose(2, 0, 1) if layout == "NCHW" else image)[None]


def shrunk() -> np.ndarray:
    """A photo of the network's own size, so that resizing changes nothing."""
    return photo(3, SIDE)


def png(pixels) -> bytes:
    """A lossless file."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def answer(classifier: Classifier, pixels) -> np.ndarray:
    """Scores in the order of the labels."""
    k = len(classifier.manifest.labels)
    predictions = classifier.classify(png(pixels), top_k=k).predictions
    return np.array([p.score for p in sorted(predictions, key=lambda p: p.index)])


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


def test_an_imported_network_can_say_where_it_looked(importer):
    """Global average pooling and a linear head are found in a stranger's graph too."""
    model = stranger()
    nodes = [n for n in model.graph.node if n.op_type in ("Conv", "Relu")]
    nodes += [
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "four", "bias"], ["logits"], transB=1),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    four = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(four, "four"))

    session = importer(model).session

    logits, maps = session.run_with_class_maps(shrunk()[None])
    bias = next(t for t in model.graph.initializer if t.name == "bias")
    summed = maps.mean(axis=(2, 3)) + onnx.numpy_helper.to_array(bias)
    assert np.allclose(summed, logits, atol=1e-4)


def wide(side: int) -> onnx.ModelProto:
    """A network that reads images of side x side, by global average pooling."""
    model = stranger()
    nodes = [n for n in model.graph.node if n.op_type in ("Conv", "Relu")]
    nodes += [
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["logits"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = side
    return model


def test_large_images_leave_fewer_golden_examples_but_the_proof_is_over_all(
    importer, tmp_path
):
    """Golden examples are replayed at every load, so that their bytes are bounded."""
    samples = [tmp_path / f"{n}.png" for n in range(6)]
    for n, path in enumerate(samples):
        Image.fromarray(photo(n)).save(path)

    few, all_of_them = (importer(wide(s), samples=samples) for s in (700, 64))

    assert len(few.bundle.read_golden().pixels) == 2
    assert len(all_of_them.bundle.read_golden().pixels) == 6
    assert "on 6 photos" in (few.bundle.folder / "card.md").read_text()


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


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"layout": "NHWC"}, "shows NCHW"),
        ({"size": "9x9"}, "height"),
        ({"size": "8x8x8"}, "size is '8x8x8'; HxW, or one number"),
        ({"size": "x"}, "size is 'x'"),
        ({"task": "multilabel", "threshold": "0.5,0.5"}, "multilabel 1 or 4 are"),
        ({"color": "gray"}, "channels"),
        ({"output": "probabilities"}, "output"),
        ({"mean": "1,2"}, "mean has 2 numbers"),
        ({"std": "0"}, "std"),
        ({"scale": "7"}, "scale"),
        ({"mean": "nan"}, "finite"),
        ({"mean": "x"}, "numbers"),
        ({"color": "pink"}, "pink"),
        ({"task": "binary", "threshold": "0.5"}, "1 or 2 scores"),
        ({"threshold": "0.5"}, "threshold"),
        ({"resize": "crop", "short_side": "3"}, "short_side"),
        ({"resize": "pad", "background": "1.5,2,3,4"}, "three numbers"),
        ({"resize": "pad", "background": "1.5,2,3"}, "three numbers"),
        ({"preset": "caffe3"}, "caffe3"),
        ({"labels": 5}, "5 labels"),
        ({"top_k": "9"}, "top_k"),
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


def ending_in(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    """Its last tensor, now `l`, goes through some more nodes to `logits`."""
    model.graph.node[-1].output[0] = "l"
    model.graph.node.extend(nodes)
    return model


@pytest.mark.parametrize(("classes", "task"), [(1, "binary"), (4, "multiclass")])
def test_sigmoids_called_logits_are_noticed(importer, classes, task):
    """Of a sigmoid a sigmoid would be at least a half: every answer would be yes."""
    model = ending_in(
        stranger(classes=classes),
        helper.make_node("Sigmoid", ["l"], ["p"]),
        helper.make_node("Sqrt", ["p"], ["root"]),
        helper.make_node("Mul", ["root", "root"], ["logits"]),
    )
    threshold = "0.5" if task == "binary" else None

    with pytest.raises(GraphError, match="as after a sigmoid"):
        importer(
            model,
            labels=max(2, classes),
            task=task,
            threshold=threshold,
            output="logits",
        )


def test_a_linear_layer_may_give_logits_from_0_to_1(importer):
    """Of a network that knows little, on one photo; the graph shows what they are."""
    model = stranger(classes=1)
    change_constant(model, "head", lambda old: old * 0)
    change_constant(model, "bias", lambda old: old * 0 + 0.5)

    assert importer(model, labels=2, task="binary", threshold="0.5")


def test_images_of_four_channels_are_refused(importer):
    """Nothing is asked first: no answer would help."""
    model = stranger()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    change_constant(model, "kernel", lambda old: np.concatenate([old, old[:, :1]], 1))

    with pytest.raises(GraphError, match=r"\[\?, 4, 8, 8\] is no image: .* 1 or 3"):
        importer(model)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_less_than_one_is_a_dynamic_one(importer, batch):
    """So some exporters write it."""
    classifier = importer(stranger(batch=batch))

    assert len(classifier.session.run(np.stack([shrunk()] * 3))) == 3


def test_probabilities_called_logits_are_noticed(importer):
    """A softmax over probabilities would flatten every score."""
    with pytest.raises(GraphError, match="they are probabilities"):
        importer(stranger(tail="hidden"), output="logits")


def test_logits_called_probabilities_are_noticed(importer):
    """The last node hides what it is; the values do not."""
    model = stranger(tail="hidden")
    del model.graph.node[-2:]
    model.graph.node.append(helper.make_node("Neg", ["logits"], ["scores"]))

    with pytest.raises(GraphError, match="said to be probabilities"):
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


def test_answers_start_with_nothing_said():
    """No field of the answers has a value of its own."""
    assert set(vars(Answers()).values()) == {None}


def test_a_photo_that_is_none_is_refused(tmp_path, importer):
    """The sample is named."""
    importer(stranger())
    path = tmp_path / "stranger.onnx"
    answers = parse_answers({**SAID, "labels": str(tmp_path / "labels.txt")})
    origin = Origin(path, "x", "", "", "", "")

    with pytest.raises(AnswerError, match=r"labels\.txt"):
        import_graph(
            read_graph(path),
            answers,
            origin,
            samples=[Path(tmp_path / "labels.txt")],
            models=tmp_path,
        )


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


@pytest.mark.parametrize("operator", ["Relu", "GlobalAveragePool"])
def test_a_bare_relu_at_the_end_is_asked_about(operator):
    """Below a mean it is how SqueezeNet ends; alone, only its author knows."""
    model = probability_map("Relu", then="mean")
    if operator == "Relu":
        (averaging,) = [n for n in model.graph.node if n.op_type == "GlobalAveragePool"]
        averaging.op_type = "GlobalMaxPool"

    (output,) = examine(model).outputs

    assert output.logits is (operator == "GlobalAveragePool")
