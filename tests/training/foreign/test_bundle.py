"""What an import puts into its bundle."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from classifier.bundle import load_bundle
from classifier.manifest import Precision, PreprocessSpec
from tests.training.foreign.importing import (
    SAID,
    ending_in,
    shrunk,
)
from tests.training.foreign.strangers import (
    SIDE,
    photo,
    stranger,
)
from training.errors import AnswerError
from training.foreign.answers import parse_answers
from training.foreign.bundle import (
    Origin,
    find_precision,
    import_graph,
    synthetic,
)
from training.foreign.source import read_graph
from training.graphs.graph import GraphError, parse


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

    one, few, all_of_them = (
        importer(wide(side), samples=samples) for side in (1200, 700, 64)
    )

    assert len(one.bundle.read_golden().pixels) == 1
    assert len(few.bundle.read_golden().pixels) == 2
    assert len(all_of_them.bundle.read_golden().pixels) == 6
    assert "on 6 photos" in (few.bundle.folder / "card.md").read_text()


def test_any_photo_may_speak_against_what_was_said(importer, tmp_path):
    """Of a gray one these could be probabilities, and of a white one they are not."""
    samples = [tmp_path / f"{shade}.png" for shade in (128, 255)]
    for shade, path in zip((128, 255), samples, strict=True):
        Image.new("RGB", (SIDE, SIDE), (shade,) * 3).save(path)
    model = stranger(classes=3)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["g"]),
            helper.make_node("Flatten", ["g"], ["f"]),
            helper.make_node("Abs", ["f"], ["logits"]),
        ]
    )
    said = {"task": "multilabel", "threshold": "0.5", "output": "probabilities"}

    assert importer(model, labels=3, samples=samples[:1], **said)
    with pytest.raises(GraphError, match="said to be probabilities, but go from"):
        importer(model, labels=3, samples=samples, **said)


def test_sixteen_of_a_folder_full_of_photos_are_taken(importer, tmp_path):
    """The first ones: a folder may hold a data set."""
    samples = [tmp_path / f"{n:02}.png" for n in range(17)]
    for path in samples[:-1]:
        Image.fromarray(photo()).save(path)

    classifier = importer(stranger(), samples=samples)  # the last one is missing

    assert len(classifier.bundle.read_golden().pixels) == 16


@pytest.mark.parametrize(
    ("dtype", "precision", "share"),
    [("float32", "fp32", 1e-3), ("float16", "fp16", 2e-2)],
)
def test_the_precision_is_that_of_the_weights(importer, dtype, precision, share):
    """A device takes the graph that suits it; golden examples allow for its errors."""
    bundle = importer(stranger(dtype=dtype)).bundle

    (variant,) = bundle.manifest.graphs
    largest = max(1, np.abs(bundle.read_golden().logits[variant.precision]).max())
    assert variant.precision == precision
    assert variant.golden_tolerance == pytest.approx(share * largest)


def test_weights_that_are_stored_in_half_are_not_computed_with_in_half(repository):
    """As this project stores them; a cast stands behind each."""
    bundle = load_bundle(repository / "models" / "imagenet")
    fp32 = bundle.read_graph(bundle.graph(Precision.FP32))
    stored = {int(tensor.data_type) for tensor in parse(fp32).graph.initializer}

    assert onnx.TensorProto.FLOAT16 in stored
    assert find_precision(fp32) == "fp32"


def test_weights_that_stand_among_the_operators_count(importer):
    """Some exporters write no initializers."""
    model = stranger(dtype="float16")
    for tensor in model.graph.initializer:
        constant = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.node.insert(0, constant)
    del model.graph.initializer[:]

    assert find_precision(model.SerializeToString()) == "fp16"


def test_a_graph_that_came_in_8_bits_is_an_int8_one(importer):
    """Its weights in float are the scales of the others."""
    model = ending_in(
        stranger(),
        helper.make_node("QuantizeLinear", ["l", "step", "zero"], ["steps"]),
        helper.make_node("DequantizeLinear", ["steps", "step", "zero"], ["logits"]),
    )
    for name, value in {"step": np.float32(0.01), "zero": np.int8(0)}.items():
        tensor = numpy_helper.from_array(np.asarray(value), name)
        model.graph.initializer.append(tensor)

    (variant,) = importer(model).manifest.graphs

    assert variant.precision == "int8"


def test_a_graph_that_takes_bytes_into_its_first_layer_is_an_int8_one():
    """It has no QuantizeLinear that would tell."""
    nodes = [
        helper.make_node("QLinearConv", list("abcdefgh"), ["q"]),
        helper.make_node("DequantizeLinear", ["q", "g", "h"], ["logits"]),
    ]
    output = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "bytes", [], [output])
    stored = helper.make_graph(nodes[1:], "stored", [], [output])

    found = [
        find_precision(helper.make_model(each).SerializeToString())
        for each in (graph, stored)
    ]

    assert found == ["int8", "fp32"]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            {"color": "bgr"},
            "white is 1, mean (0.5, 0.4, 0.3), std (0.2, 0.25, 0.3), BGR",
        ),
        (
            {"mean": "0.5"},
            "white is 1, mean (0.5, 0.5, 0.5), std (0.2, 0.25, 0.3), rgb",
        ),
    ],
)
def test_the_card_tells_how_pixels_are_normalized(importer, said, line):
    """As it was said, for nobody can see it in the graph."""
    folder = importer(stranger(), **said).bundle.folder

    assert f"- Normalization: {line}\n" in (folder / "card.md").read_text()


@pytest.mark.parametrize(
    ("classes", "said", "count"), [(4, None, 4), (7, None, 5), (7, "2", 2)]
)
def test_an_answer_has_five_labels_where_nothing_is_said(
    importer, classes, said, count
):
    """Or as many as there are."""
    classifier = importer(stranger(classes=classes), labels=classes, top_k=said)

    assert classifier.manifest.postprocess.top_k == count


@pytest.mark.parametrize(
    ("said", "background"),
    [
        ({}, (255, 255, 255)),
        ({"resize": "pad", "background": "1,2,3"}, (1, 2, 3)),
    ],
)
def test_the_background_is_white_where_nothing_is_said(importer, said, background):
    """It shows through transparent parts, also where nothing is padded."""
    spec = importer(stranger(), **said).manifest.preprocess

    assert spec.background == background


def test_synthetic_images_differ_in_every_channel():
    """Else red taken for blue would prove nothing."""
    spec = PreprocessSpec(
        height=24,
        width=16,
        color="rgb",
        resize="squash",
        short_side=None,
        interpolation="bilinear",
        background=(0, 0, 0),
    )

    pixels = synthetic(spec)

    assert pixels.shape == (3, 24, 16, 3)
    for image in pixels:
        red, green, blue = np.moveaxis(image, -1, 0)
        assert not any(np.array_equal(a, b) for a, b in [(red, green), (green, blue)])


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
