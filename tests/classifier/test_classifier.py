"""bundle → Classifier: one image, many images, four tasks, as a library of its own."""

import hashlib
import itertools
import json
import threading
import weakref
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from classifier import Classification, Classifier, DecodeLimits
from classifier.bundle import load_bundle, write_bundle
from classifier.errors import (
    BundleError,
    EmptyImageError,
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    RequestError,
    SessionError,
)
from classifier.golden import Golden
from classifier.hardware import available_cores
from classifier.manifest import Manifest, Precision, Task
from classifier.session import Session
from classifier.variant import choose_variant
from tests.classifier.processes import python
from tests.synthetic import golden_pixels, graph, make_bundle, manifest_fields, png

RED, BLUE = png((240, 10, 10)), png((10, 10, 240))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A bundle of each task."""
    folder = tmp_path_factory.mktemp("models")
    for task in Task:
        make_bundle(folder, task.value, task)
    return folder


@pytest.fixture(scope="module")
def colors(root) -> Classifier:
    """Of three colors, multiclass."""
    return Classifier.load(root / "multiclass")


def best(answer: Classification | ImageError) -> str:
    """The first label, or the name of the error."""
    if isinstance(answer, ImageError):
        return type(answer).__name__
    return answer.predictions[0].label


def test_each_task_answers_in_its_own_way(root):
    """From one file to an answer; the graph says which color an image has."""
    answers = {t: Classifier.load(root / t.value).classify(RED) for t in Task}

    assert best(answers[Task.MULTICLASS]) == "red"
    assert answers[Task.BINARY].decision == "red"
    assert [p.label for p in answers[Task.MULTILABEL].predictions] == ["red"]
    assert answers[Task.FINE_GRAINED].groups[0].group == "warm"
    for answer in answers.values():
        assert (answer.image.width, answer.image.format) == (8, "PNG")


def test_whatever_holds_the_image_gives_the_same_answer(colors, tmp_path):
    """Bytes, a path, its text, a Pillow image, an array."""
    path = tmp_path / "red.png"
    path.write_bytes(RED)
    with Image.open(path) as image:
        kinds = (RED, path, str(path), image, np.asarray(image))
        answers = [colors.classify(kind) for kind in kinds]

    assert len({answer.predictions for answer in answers}) == 1
    assert len({answer.image for answer in answers[:4]}) == 1


def test_a_gray_array_is_an_image_too(colors):
    """uint8 [H, W]."""
    assert colors.classify(np.full((8, 8), 7, np.uint8)).warnings


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 \[8, 8, 3\]; uint8 \[H, W\] or"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \[8, 8, 4\]"),
        (np.zeros((0, 8, 3), np.uint8), r"uint8 \[0, 8, 3\]"),
        (None, "cannot classify a NoneType; bytes, a path"),
        (7, "cannot classify a int"),
        ("no/such/file.png", "cannot read no/such/file.png"),
        ("a\0b", "cannot read"),
        ("", "cannot read"),
    ],
)
def test_what_is_no_image_is_refused_by_name(colors, image, message):
    """And what would be one is told."""
    with pytest.raises(ImageDecodeError, match=message):
        colors.classify(image)


def test_the_limits_of_a_classifier_hold(root, tmp_path):
    """For bytes, for files, for opened images and for arrays."""
    file = tmp_path / "red.png"
    file.write_bytes(RED)
    small = Classifier.load(root / "multiclass", limits=DecodeLimits(max_pixels=63))

    opened = Image.new("RGB", (8, 8))
    for image in (RED, file, str(file), opened, np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(ImageTooLargeError):
            small.classify(image)
    assert best(next(small.classify_many([RED]))) == "ImageTooLargeError"


def test_parameters_are_checked_before_anything_is_decoded(colors):
    """The image is not to blame."""
    with pytest.raises(RequestError, match="top_k is 9"):
        colors.classify(b"", top_k=9)
    with pytest.raises(RequestError, match="threshold is 2"):
        colors.classify_many([b""], threshold=2)


def test_many_images_are_answered_in_order_and_errors_in_place(colors):
    """A bad image is answered by its error and disturbs nobody."""
    cut = Image.open(BytesIO(RED[:50]))
    images = [RED, b"garbage", BLUE, b"", "no/such/file", cut, RED] * 5

    answers = list(colors.classify_many(images))

    expected = ["red", ImageFormatError, "blue", EmptyImageError]
    expected += [ImageDecodeError, ImageDecodeError, "red"]
    names = [e if isinstance(e, str) else e.__name__ for e in expected]
    assert [best(answer) for answer in answers] == names * 5


def test_many_and_one_agree(colors):
    """To rounding: the stream may run on sessions of its own."""
    images = [png((i, 255 - i, 128)) for i in range(0, 250, 10)]

    for image, answer in zip(images, colors.classify_many(images), strict=True):
        alone = colors.classify(image)
        for one, other in zip(alone.predictions, answer.predictions, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-6)


def test_an_endless_stream_is_read_only_a_little_ahead(colors):
    """A camera never ends, and memory does."""
    taken = 0

    def camera() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield RED

    answers = colors.classify_many(camera())
    assert taken == 0
    first = list(itertools.islice(answers, 3))
    answers.close()

    assert [best(answer) for answer in first] == ["red"] * 3
    assert taken <= 3 + 4 * available_cores()


class Slow(BytesIO):
    """A file that is read when its gate opens; `asked` once somebody wants to."""

    gate: threading.Event | None = None
    asked = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Its bytes, late; a second later if nobody opens the gate."""
        if self.gate is not None:
            self.asked = True
            self.gate.wait(timeout=1)
        return super().read(size)


def test_who_stops_reading_does_not_wait_for_the_images_ahead(colors):
    """Those that no core has begun are let go, and only then do the others end."""
    gate = threading.Event()
    files = [Slow(RED) for _ in range(4 * available_cores() - 1)]

    def opened(file: Slow) -> Image.Image:
        image = Image.open(file)
        file.gate = gate
        if file is files[-2]:  # the pool holds the last that it cancels until its end
            weakref.finalize(image, gate.set)
        return image

    answers = colors.classify_many(itertools.chain([RED], map(opened, files)))
    assert best(next(answers)) == "red"
    answers.close()

    assert gate.is_set()
    assert not files[-1].asked


def test_no_images_are_no_answers(colors):
    """Not an error."""
    assert list(colors.classify_many([])) == []


@pytest.mark.parametrize(
    ("other", "error", "found"),
    [
        (graph(side=4), BundleError, r"maps pixels \(4, 4, 3\) to 3 logits; the mani"),
        (graph(classes=5), BundleError, r"maps pixels \(8, 8, 3\) to 5 logits; the m"),
        (b"no graph", SessionError, "ONNX Runtime: "),
    ],
)
def test_a_graph_of_another_kind_than_the_manifest_says_is_refused(
    tmp_path, other, error, found
):
    """The manifest is believed, and the message names the bundle."""
    fields = manifest_fields("colors", Task.MULTICLASS)
    fields["graphs"][0]["sha256"] = hashlib.sha256(other).hexdigest()
    folder = write_bundle(
        tmp_path,
        Manifest.model_validate_json(json.dumps(fields)),
        graphs={"model.onnx": other},
        golden=Golden(golden_pixels(8), {Precision.FP32: np.zeros((2, 3), np.float32)}),
        card="",
    )

    with pytest.raises(error, match=f"^colors/1 fp32: .*{found}"):
        Classifier.load(folder)


def detour(nodes: int) -> bytes:
    """The graph with so many more nodes in a row, and the same logits."""
    model = onnx.load_from_string(graph())
    last = model.graph.node.pop()
    names = ["mixed", *(f"sine{index}" for index in range(nodes))]
    chain = [helper.make_node("Sin", [a], [b]) for a, b in itertools.pairwise(names)]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    model.graph.initializer.append(zero)
    nothing = helper.make_node("Mul", [names[-1], "zero"], ["nothing"])
    total = helper.make_node("Add", ["mixed", "nothing"], [last.output[0]])
    model.graph.node.extend([*chain, nothing, total])
    return model.SerializeToString()


def two_graphs(
    root: Path,
    *,
    passed: bool | None,
    fp32: bytes | None = None,
    int8: bytes | None = None,
) -> Path:
    """A bundle of fp32 and int8 whose gate said so, or that met none."""
    model, smaller = fp32 or graph(), int8 or graph()
    fields = manifest_fields("colors", Task.MULTICLASS)
    reference = fields["graphs"][0] | {"sha256": hashlib.sha256(model).hexdigest()}
    gate = {"passed": passed, "dataset": "d", "n": 9, "accuracy_drop": 0.0}
    gate |= {"agreement": 1.0, "reason": ""}
    small = {"precision": "int8", "file": "small.onnx"}
    small["sha256"] = hashlib.sha256(smaller).hexdigest()
    small["gate"] = None if passed is None else gate
    fields["graphs"] = [reference, reference | small]
    logits = Session.load(model, threads=1).run(golden_pixels(8))
    return write_bundle(
        root,
        Manifest.model_validate_json(json.dumps(fields)),
        graphs={"model.onnx": model, "small.onnx": smaller},
        golden=Golden(
            golden_pixels(8), {Precision.FP32: logits, Precision.INT8: logits}
        ),
        card="",
    )


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("passed", "chosen"), [(True, "int8"), (False, "fp32")])
def test_auto_takes_int8_where_its_gate_passed_and_the_processor_has_it(
    tmp_path, monkeypatch, passed, chosen, fast
):
    """Fewer bits are chosen by measurement, never by hope."""
    monkeypatch.setattr("classifier.variant.has_fast_int8", lambda: fast)
    bundle = load_bundle(two_graphs(tmp_path, passed=passed))

    found = choose_variant(bundle, "auto", "cpu").precision

    assert found == (chosen if fast else "fp32")
    assert choose_variant(bundle, "auto", "cuda").precision == "fp32"


@pytest.mark.parametrize(
    ("slower", "padding", "chosen"),
    [("int8", 0, "fp32"), ("fp32", 0, "int8"), ("int8", 1_000_000, "int8")],
)
def test_auto_takes_fp32_where_a_small_network_is_faster_in_it(
    tmp_path, monkeypatch, slower, padding, chosen
):
    """Conversions can cost more than they save; large graphs are not timed."""
    monkeypatch.setattr("classifier.variant.has_fast_int8", lambda: True)
    model = onnx.load_from_string(detour(400))
    model.doc_string = " " * padding
    bundle = load_bundle(
        two_graphs(tmp_path, passed=True, **{slower: model.SerializeToString()})
    )

    assert choose_variant(bundle, "auto", "cpu").precision == chosen
    assert choose_variant(bundle, "int8", "cpu").precision == "int8"


def test_a_small_graph_that_met_no_gate_is_only_taken_when_asked_for(tmp_path):
    """Beside fp32 there must be a measurement that speaks for it."""
    bundle = load_bundle(two_graphs(tmp_path, passed=None))

    assert choose_variant(bundle, "auto", "cpu").precision == "fp32"
    assert choose_variant(bundle, "int8", "cpu").precision == "int8"


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("int8", "has no int8 graph; it has: fp32"),
        ("int4", "'int4'; allowed are auto, fp32, fp16, int8"),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused(root, precision, message):
    """No fall back: who names one has a reason."""
    with pytest.raises(BundleError, match=message):
        Classifier.load(root / "multiclass", precision=precision)


ALONE = """
import sys
blocked = ("torch", "fastapi", "starlette", "onnx", "service", "training")
sys.modules.update(dict.fromkeys(blocked))
from classifier import Classifier
answer = Classifier.load(sys.argv[1]).classify(sys.argv[2])
print(answer.predictions[0].label)
"""


def test_the_classifier_is_a_library_of_its_own(root, tmp_path):
    """It works where neither torch, nor onnx, nor the service can be imported."""
    (tmp_path / "blue.png").write_bytes(BLUE)

    result = python(ALONE, root / "multiclass", tmp_path / "blue.png")

    assert (result.stdout.strip(), result.stderr) == ("blue", "")
