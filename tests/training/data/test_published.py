"""CIFAR-10 and MNIST are read in every format in which they circulate."""

import gzip
import hashlib
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from classifier.manifest import PreprocessSpec
from classifier.preprocess import preprocess
from training.data import cifar, load_dataset
from training.data.cifar import PACKED, TEST_BATCH, TRAIN_BATCHES, read_packed
from training.data.tree import open_tree
from training.errors import DataError

N = 20  # images a batch


@pytest.fixture
def batches():
    """Pixels, uint8 [20, 32, 32, 3], and labels for each of the six batches."""
    rng = np.random.default_rng(0)
    return {
        name: (
            rng.integers(0, 256, (N, 32, 32, 3), np.uint8),
            rng.integers(0, 10, N),
        )
        for name in (*TRAIN_BATCHES, TEST_BATCH)
    }


def planes(pixels):
    """As in the published files: all red, then all green, then all blue."""
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def assert_same(dataset, batches):
    """The five batches in order, then the test batch."""
    train = np.concatenate([batches[name][0] for name in TRAIN_BATCHES])
    assert np.array_equal(dataset.train.samples.array, train)
    assert np.array_equal(dataset.parts["test"].labels, batches[TEST_BATCH][1])


def test_the_binary_version_is_read(tmp_path, batches):
    """A label byte, then three planes."""
    for name, (pixels, labels) in batches.items():
        rows = np.concatenate([labels[:, None], planes(pixels)], 1).astype(np.uint8)
        (tmp_path / f"{name}.bin").write_bytes(rows.tobytes())

    assert_same(load_dataset(tmp_path), batches)


def test_the_python_version_is_read_without_trusting_it(tmp_path, batches):
    """The pickles of the published archive, in its outer folder."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, (pixels, labels) in batches.items():
        batch = {b"data": planes(pixels), b"labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))

    assert_same(load_dataset(folder), batches)


class Attack:
    """Unpickled, it would run a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os  # noqa: PLC0415

        return os.system, (self.command,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, batches):
    """Only arrays come out of a batch; the command in it is never looked up."""
    for name in batches:
        attack = {b"data": Attack(f"touch {tmp_path}/pwned"), b"labels": []}
        (tmp_path / name).write_bytes(pickle.dumps(attack, protocol=2))

    with pytest.raises(DataError, match="only arrays are allowed"):
        load_dataset(tmp_path)
    assert not (tmp_path / "pwned").exists()


def nested(depth: int) -> list:
    """A list that holds itself 2 ** depth times, in a few hundred bytes."""
    numbers = [1, 2]
    for _ in range(depth):
        numbers = [numbers, numbers]
    return numbers


class Shape:
    """Unpickled, it would be an array of that many bytes, of which none was sent."""

    def __init__(self, *sides):
        self.sides = sides

    def __reduce__(self):
        return np.ndarray, (self.sides, np.dtype(np.uint8))


@pytest.mark.parametrize(
    ("data", "labels", "said"),
    [
        (nested(12), [0], "its data are no array"),
        (Shape(10, 3072), [0] * 10, "its data are no array"),
        (np.zeros((1, 3072), np.uint8), nested(12), "its labels are no numbers"),
    ],
)
def test_a_batch_is_no_larger_than_its_file(tmp_path, batches, data, labels, said):
    """Otherwise a few hundred bytes could ask for all memory there is."""
    for name in batches:
        batch = {b"data": data, b"labels": labels}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=4))

    with pytest.raises(DataError, match=said):
        load_dataset(tmp_path)


def test_the_packed_cifar_is_not_of_bzip2(tmp_path):
    """Of which zipfile unpacks all that there is at once."""
    for name in PACKED:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_BZIP2) as target:
            target.writestr("y.npy", b"")

    with pytest.raises(DataError, match="compressed by method 12"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("bound", ["MAX_FILE_BYTES", "MAX_UNPACKED_BYTES"])
def test_the_packed_cifar_is_bounded(tmp_path, monkeypatch, bound):
    """The zip in it, and all its images together."""
    strip = io.BytesIO()
    Image.new("RGB", (32, 3200)).save(strip, "WEBP", lossless=True)
    for name in PACKED:
        with zipfile.ZipFile(tmp_path / name, "w") as target:
            target.writestr("0.webp", strip.getvalue())
            labels = io.BytesIO()
            np.save(labels, np.zeros(100, np.int64))
            target.writestr("y.npy", labels.getvalue())

    assert len(load_dataset(tmp_path).train.samples) == 100
    monkeypatch.setattr(cifar, bound, 500)
    with pytest.raises(DataError, match="over 500 bytes"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x80\x02]q\x00."])
def test_a_damaged_batch_names_its_file(tmp_path, batches, damage):
    """Whatever the damage raises inside."""
    for name in batches:
        (tmp_path / name).write_bytes(damage)

    with pytest.raises(DataError, match="data_batch_1 is no CIFAR-10 batch"):
        load_dataset(tmp_path)


def test_the_packed_cifar_is_bit_exact(data_dir):
    """Its README gives the checksum of the test images."""
    pixels, labels = read_packed(open_tree(data_dir / "cifar-10"), "cifar10-test.zip")

    assert np.bincount(labels).tolist() == [1000] * 10
    assert pixels.shape == (10_000, 32, 32, 3)
    assert hashlib.sha256(pixels.tobytes()).hexdigest().startswith("1249626010949d8f")


def idx(array):
    """The IDX file of a uint8 array."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def digits(tmp_path):
    """Four small IDX files, gzipped."""
    for prefix, count in (("train", 30), ("t10k", 10)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28))
        labels = np.arange(count) % 10
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = tmp_path / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(array)))
    return tmp_path


def test_idx_files_are_read(digits):
    """Gray digits have one channel."""
    dataset = load_dataset(digits)

    assert dataset.train.samples.array.shape == (30, 28, 28, 1)
    assert dataset.parts["test"].labels.tolist() == list(range(10))


@pytest.mark.parametrize(
    "damage",
    [
        b"\x1f\x8b cut",
        gzip.compress(b"\0\0\x0d\x03 floats"),
        gzip.compress(b""),
        # 2 ** 64 bytes, for which 64 bits are too few
        gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 4)),
    ],
    ids=["no gzip", "wrong type", "empty", "vast"],
)
def test_a_damaged_idx_file_is_refused_by_name(digits, damage):
    """Wrong type, wrong length, or no gzip at all."""
    name = "train-images-idx3-ubyte.gz"
    (digits / name).write_bytes(damage)

    with pytest.raises(DataError, match=name):
        load_dataset(digits)


@pytest.mark.parametrize(
    ("resize", "short_side"),
    [("squash", None), ("pad", None), ("crop", 28), ("crop", 40)],
)
def test_array_images_take_the_path_of_every_file(digits, resize, short_side):
    """Pixels handed over directly are what preprocessing makes of the same image."""
    spec = PreprocessSpec(
        height=28,
        width=28,
        color="gray",
        resize=resize,
        short_side=short_side,
        interpolation="bicubic",
        background=(255, 255, 255),
    )
    train = load_dataset(digits).train

    direct = train.pixels(spec)
    through_files = [preprocess(train.samples.read(n), spec).pixels for n in range(30)]

    assert np.array_equal(direct, np.stack(through_files))
    assert Image.open(io.BytesIO(train.samples.read(0))).format == "PNG"
