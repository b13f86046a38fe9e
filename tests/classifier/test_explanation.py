"""class maps → explanation: the grid, its region, and the library's own way to it."""

from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper
from PIL import Image

from classifier import Classifier, Task
from classifier.errors import BundleError, SessionError
from classifier.explanation import heat, seen_region
from classifier.manifest import PreprocessSpec
from classifier.preprocess import fit
from classifier.session import Session
from tests.synthetic import golden_pixels, graph, make_bundle

RED, BLUE = (240, 10, 10), (10, 10, 240)
ORIENTATION = 0x0112  # the EXIF tag
TURNED_RIGHT = 6  # as stored; upright after a quarter turn to the right

maps = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
)
sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


def red_corner(
    size: tuple[int, int] = (8, 8), *, orientation: int | None = None
) -> bytes:
    """A blue image, as a PNG, whose upper left quarter is red."""
    image = Image.new("RGB", size, BLUE)
    image.paste(RED, (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    buffer = BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def spec(resize: str) -> PreprocessSpec:
    """Preprocessing to 8 x 12; "crop" from a short side of 16."""
    return PreprocessSpec(
        height=8,
        width=12,
        color="rgb",
        resize=resize,
        short_side=16 if resize == "crop" else None,
        interpolation="box",
        background=(255, 255, 255),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A bundle with class maps for tasks of both kinds, and one without."""
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder, "colors", class_maps=True, abstain_threshold=0.5)
    make_bundle(folder, "is-red", Task.BINARY, class_maps=True)
    make_bundle(folder, "blind")
    return folder


@given(maps)
def test_a_grid_is_the_share_of_the_strongest(class_map):
    """From 0 to 1, 1 at the strongest place; all 0 if nothing speaks for the label."""
    grid = np.array(heat(class_map))

    assert grid.shape == class_map.shape
    assert ((grid >= 0) & (grid <= 1)).all()
    assert grid.max() == (1 if class_map.max() > 0 else 0)
    assert (grid[class_map <= 0] == 0).all()
    assert grid.flat[class_map.argmax()] == grid.max()


@given(maps, st.integers(-20, 20))
def test_a_grid_does_not_depend_on_the_unit_of_the_logits(class_map, exponent):
    """Twice the logits, the same picture: by powers of 2, which round nothing."""
    small = np.clip(class_map, -1, 1).round(3)

    assert heat(small * np.float32(2.0**exponent)) == heat(small)


def test_a_grid_is_written_as_expected():
    """Worked out by hand."""
    assert heat(np.array([[-1, 0, 1], [2, 4, 3]], np.float32)) == (
        (0, 0, 0.25),
        (0.5, 1, 0.75),
    )


def test_class_maps_add_up_to_the_logits():
    """Their mean, for this head without a bias: Zhou et al., section 2."""
    session = Session.load(graph(classes=5, class_maps=True), threads=1)

    logits, class_maps = session.run_with_class_maps(golden_pixels(8))

    assert class_maps.shape == (2, 5, 2, 2)
    np.testing.assert_allclose(class_maps.mean(axis=(2, 3)), logits, rtol=1e-5)


def test_class_maps_of_another_shape_are_refused():
    """When the graph is loaded, not when somebody asks."""
    model = onnx.load_from_string(graph())
    model.graph.node.append(helper.make_node("Neg", ["logits"], ["class_maps"]))
    flat = helper.make_tensor_value_info("class_maps", TensorProto.FLOAT, ["N", 3])
    model.graph.output.append(flat)

    with pytest.raises(
        BundleError, match=r"'class_maps' is .* \[N, 3, h, w\] is needed"
    ):
        Session.load(model.SerializeToString(), threads=1)


def test_class_maps_that_are_no_numbers_are_refused():
    """JSON has no infinity, and a share of it means nothing."""
    model = onnx.load_from_string(graph(class_maps=True))
    model.graph.node[-1].output[0] = "finite"
    model.graph.node.append(helper.make_node("Log", ["finite"], ["class_maps"]))
    session = Session.load(model.SerializeToString(), threads=1)

    with pytest.raises(SessionError, match="not finite"):
        session.run_with_class_maps(np.zeros((1, 8, 8, 3), np.uint8))


@given(sizes, st.sampled_from(["crop", "squash", "pad"]))
def test_the_region_is_centered_and_has_the_shape_of_the_pixels(size, resize):
    """But for squash, which sees all; pad rounds to whole pixels of the canvas."""
    left, top, right, bottom = seen_region(size, spec(resize))

    slack = 0.6 if resize == "pad" else 1e-9
    assert left + right == pytest.approx(1, abs=slack * 2)
    assert top + bottom == pytest.approx(1, abs=slack * 2)
    if resize == "squash":
        assert (left, top, right, bottom) == (0, 0, 1, 1)
    if resize == "crop":
        assert left >= 0
        assert top >= 0
    if resize == "pad":
        assert left <= 0
        assert top <= 0
        assert right >= 1
        assert bottom >= 1


@pytest.mark.parametrize(
    ("size", "how", "expected"),
    [
        ((64, 64), spec("crop"), (0.125, 0.25, 0.875, 0.75)),
        ((48, 32), spec("crop"), (0.25, 0.25, 0.75, 0.75)),
        ((24, 8), spec("pad"), (0, -0.5, 1, 1.5)),
        ((7, 3), spec("squash"), (0, 0, 1, 1)),
    ],
)
def test_the_region_is_what_the_network_saw(size, how, expected):
    """What lies in it is what `fit` keeps: everything else may change unseen."""
    assert seen_region(size, how) == pytest.approx(expected)
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    box = [round(f * size[i % 2]) for i, f in enumerate(expected)]
    outside = noise.copy()
    inside = np.s_[max(0, box[1]) : box[3], max(0, box[0]) : box[2]]
    outside[:] = 0
    outside[inside] = noise[inside]

    np.testing.assert_array_equal(
        fit(Image.fromarray(noise), how), fit(Image.fromarray(outside), how)
    )


@pytest.mark.parametrize("name", ["colors", "is-red"])
def test_the_library_says_where_red_is(root, name):
    """In the upper left quarter; a binary model explains its positive label."""
    classifier = Classifier.load(root / name, threads=1)
    image = Image.new("RGB", (8, 8), (10, 10, 10))
    image.paste(RED, (0, 0, 4, 4))

    found = classifier.explain(image)

    assert found.label == "red"
    assert found.index == (1 if name == "is-red" else 0)
    np.testing.assert_allclose(found.grid, [[1, 10 / 240], [10 / 240] * 2], atol=1e-4)
    assert found.region == (0, 0, 1, 1)


def test_an_image_that_stands_on_its_side_is_explained_upright(root):
    """The upper left quarter as stored is the upper right one for a person."""
    classifier = Classifier.load(root / "colors", threads=1)

    as_stored = classifier.explain(red_corner())
    upright = classifier.explain(red_corner(orientation=TURNED_RIGHT))

    assert as_stored.label == upright.label == "blue"
    assert as_stored.grid[0][0] == min(min(row) for row in as_stored.grid) < 0.1
    assert upright.grid == tuple(row[::-1] for row in as_stored.grid)


def test_no_prediction_means_no_explanation(root):
    """A model that abstains names no label that could be explained."""
    classifier = Classifier.load(root / "colors", threads=1)

    assert classifier.explain(np.full((8, 8, 3), 90, np.uint8)) is None


def test_a_graph_without_class_maps_says_so(root):
    """Rather than to invent some."""
    with pytest.raises(SessionError, match="no class-activation maps"):
        Classifier.load(root / "blind", threads=1).explain(red_corner())
