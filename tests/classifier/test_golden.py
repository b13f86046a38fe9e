"""Real inputs and the logits that they must give, replayed at every load."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.bundle import load_bundle
from classifier.classifier import Classifier
from classifier.errors import BundleError
from classifier.golden import (
    MAX_BYTES,
    MAX_EXAMPLES,
    Golden,
    read_golden,
    replay,
    write_golden,
)
from classifier.manifest import MAX_SIDE, Manifest, Precision
from classifier.session import Session
from tests.synthetic import make_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid bundle, whose golden.npz will be replaced."""
    return make_bundle(tmp_path)


def npz(**arrays: object) -> bytes:
    """The bytes of an npz of these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def good(n: int = 2) -> dict[str, np.ndarray]:
    """Arrays of the right names, types and shapes."""
    return {
        "pixels": np.zeros((n, 8, 8, 3), np.uint8),
        "logits_fp32": np.zeros((n, 3), np.float32),
    }


def read(folder: Path, content: bytes) -> Golden:
    """Read this content as the bundle's golden.npz."""
    (folder / "golden.npz").write_bytes(content)
    return read_golden(folder / "golden.npz", load_bundle(folder).manifest)


def test_what_was_written_is_what_is_read(folder):
    """To the last bit."""
    golden = Golden(
        good()["pixels"] + 7, {Precision.FP32: np.float32([[0.1, 2, 3]] * 2)}
    )

    again = read(folder, write_golden(golden, load_bundle(folder).manifest))

    assert (again.pixels == golden.pixels).all()
    assert (again.logits[Precision.FP32] == golden.logits[Precision.FP32]).all()


def shifted(folder: Path, by: float) -> None:
    """Let the bundle expect other logits."""
    bundle = load_bundle(folder)
    golden = bundle.read_golden()
    logits = {p: values + np.float32(by) for p, values in golden.logits.items()}
    content = write_golden(Golden(golden.pixels, logits), bundle.manifest)
    (folder / "golden.npz").write_bytes(content)


def test_a_bundle_that_answers_as_expected_is_loaded(folder):
    """The tolerance of the manifest, 1e-4 here, is for other processors' rounding."""
    shifted(folder, 0.00009)

    assert Classifier.load(folder).manifest.name == "colors"


@pytest.mark.parametrize("by", [0.0002, -0.0002, 5.0, np.nan, np.inf])
def test_a_bundle_that_answers_differently_is_refused(folder, by):
    """The message says which of many, by how much, and on which device."""
    shifted(folder, by)

    with pytest.raises(
        BundleError,
        match=r"^colors/1 fp32: .* model.onnx on cpu is off by .*; 0.0001 is",
    ):
        Classifier.load(folder)


def test_the_error_is_told_to_who_asks(folder):
    """`doctor` shows it; the last example counts as much as the first."""
    bundle = load_bundle(folder)
    golden = bundle.read_golden()
    golden.logits[Precision.FP32][-1, -1] += np.float32(0.00005)
    variant = bundle.manifest.graphs[0]

    off = replay(golden, Session.load(bundle.read_graph(variant), threads=1), variant)

    assert off == pytest.approx(0.00005, abs=2e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": np.zeros((2, 8, 8, 3), np.float32)}, "'pixels' is float32"),
        ({"pixels": np.zeros((2, 9, 8, 3), np.uint8)}, r"\[2, 9, 8, 3\]; uint8"),
        ({"pixels": np.zeros((2, 8, 8), np.uint8)}, r"uint8 \[2, 8, 8, 3\] is needed"),
        ({"pixels": np.uint8(7)}, "'pixels' is uint8"),
        ({"logits_fp32": np.zeros((2, 3), np.float64)}, "'logits_fp32' is float64"),
        ({"logits_fp32": np.zeros((1, 3), np.float32)}, "'logits_fp32' is float32"),
        ({"logits_fp32": np.zeros((2, 4), np.float32)}, "'logits_fp32' is float32"),
        (good(0), "0 examples, not 1 to 64"),
        (good(MAX_EXAMPLES + 1), "65 examples, not 1 to 64"),
    ],
)
def test_other_shapes_than_the_manifest_says_are_refused(folder, changes, message):
    """An array is checked before it is used, and the message names its file."""
    with pytest.raises(BundleError, match=rf"golden\.npz: .*{message}"):
        read(folder, npz(**(good() | changes)))


@pytest.mark.parametrize(
    ("n", "classes", "message"),
    [(MAX_EXAMPLES + 1, 3, "65 examples, not 1 to 64"), (2, 4, r"\[2, 3\] is needed")],
)
def test_what_could_not_be_read_is_not_written(folder, n, classes, message):
    """Whoever makes a bundle hears of it, and not the service that finds it."""
    golden = Golden(
        good(n)["pixels"], {Precision.FP32: np.zeros((n, classes), np.float32)}
    )

    with pytest.raises(BundleError, match=message):
        write_golden(golden, load_bundle(folder).manifest)


def test_logits_of_a_graph_that_are_missing_are_not_left_out(folder):
    """Each graph of the manifest is replayed."""
    golden = Golden(good()["pixels"], {})

    with pytest.raises(BundleError, match="no logits of fp32"):
        write_golden(golden, load_bundle(folder).manifest)


def largest(folder: Path) -> Manifest:
    """The manifest, as if its network took the largest images that there may be."""
    manifest = load_bundle(folder).manifest
    spec = {"height": MAX_SIDE, "width": MAX_SIDE}
    spec = manifest.preprocess.model_copy(update=spec)
    return manifest.model_copy(update={"preprocess": spec})


def test_one_example_of_the_largest_size_fits(folder):
    """A network that a manifest can describe can have a bundle."""
    manifest = largest(folder)
    pixels = np.zeros((1, *manifest.preprocess.shape), np.uint8)
    golden = Golden(pixels, {Precision.FP32: np.zeros((1, 3), np.float32)})
    path = folder / "golden.npz"

    path.write_bytes(write_golden(golden, manifest))

    assert read_golden(path, manifest).pixels.shape == pixels.shape


def test_examples_of_too_many_bytes_are_not_written(folder):
    """They would be refused at every load, and with them the service."""
    manifest = largest(folder)
    pixels = np.zeros((2, *manifest.preprocess.shape), np.uint8)
    golden = Golden(pixels, {Precision.FP32: np.zeros((2, 3), np.float32)})

    with pytest.raises(BundleError, match=r"unpacks to \d+ bytes; 67108864 are"):
        write_golden(golden, manifest)


def test_a_missing_array_is_refused(folder):
    """Each graph needs logits of its own."""
    with pytest.raises(BundleError, match="logits_fp32"):
        read(folder, npz(pixels=good()["pixels"]))


class Bomb:
    """Unpickling it would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str, str]]:
        return Path.write_text, (self.trace, "code ran")


def test_no_code_in_it_runs(folder, tmp_path):
    """An array of objects is a pickle, and a pickle is a program."""
    trace = tmp_path / "trace"
    bomb = np.array([Bomb(trace)], dtype=object)

    for content in (npz(**(good() | {"pixels": bomb})), pickle.dumps(Bomb(trace))):
        with pytest.raises(BundleError, match="cannot read"):
            read(folder, content)
    assert not trace.exists()


def archive(name: str, content: bytes, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of good arrays, but for one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr(name, content)
        for other, array in good().items():
            if f"{other}.npy" != name:
                file.writestr(f"{other}.npy", npy(array))
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    """The bytes of one array."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_zip_bomb_is_not_unpacked(folder):
    """The directory of the archive says how much it would be."""
    content = archive("pixels.npy", bytes(MAX_BYTES))

    assert len(content) < MAX_BYTES // 500
    with pytest.raises(BundleError, match=r"unpacks to \d+ bytes; 67108864 are"):
        read(folder, content)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_than_deflate_is_refused(folder, method):
    """1 KB of bzip2 is unpacked to 3 GB, whatever the directory says."""
    with pytest.raises(BundleError, match="otherwise than by deflate"):
        read(folder, archive("pixels.npy", npy(good()["pixels"]), method=method))


def test_a_shape_is_not_believed(folder):
    """A header of 128 bytes may claim petabytes."""
    head = npy(np.zeros((2, 8, 8, 3), np.uint8))
    claimed = head.replace(b"(2, 8, 8, 3), }      ", b"(2000000000000000,), }")

    assert claimed != head
    with pytest.raises(BundleError, match="cannot read"):
        read(folder, archive("pixels.npy", claimed))


def test_a_member_that_is_no_array_is_refused(folder):
    """NumPy hands its bytes out as they are."""
    with pytest.raises(BundleError, match="golden"):
        read(folder, archive("pixels.npy", b"text"))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damage_anywhere_is_a_bundle_error(data, folder):
    """Of the archive, its streams or its arrays; or it does no harm."""
    content = bytearray(archive("card.npy", b""))
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content)))]
    else:
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1)):
            content[place] ^= data.draw(st.integers(1, 255))

    try:
        golden = read(folder, bytes(content))
    except BundleError as error:
        assert "golden" in str(error)  # noqa: PT017  (either way is fine, silence is not)
    else:
        assert golden.pixels.shape[1:] == (8, 8, 3)
