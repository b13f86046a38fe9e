"""Order follows from seed and epoch alone; streamed batches equal resident ones."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from classifier.manifest import PreprocessSpec
from tests.training.data.pictures import encoded, write_tree
from training.data import load_dataset
from training.data.batches import Order, ResidentBatches, StreamedBatches, open_batches
from training.errors import DataError

CPU = torch.device("cpu")
SPEC = PreprocessSpec(
    height=16,
    width=16,
    color="rgb",
    resize="squash",
    short_side=None,
    interpolation="bicubic",
    background=(255, 255, 255),
)


def test_an_epoch_shows_every_image_once_in_another_order():
    """And the same again for the same seed and epoch, and another for another seed."""
    order = Order(samples=12, batch_size=4, seed=3)
    first, again, next_one = (
        order.batches(epoch, 0).flatten().tolist() for epoch in (0, 0, 1)
    )

    assert sorted(first) == list(range(12))
    assert first == again
    assert first != next_one
    other = Order(12, 4, seed=4).batches(0, 0).flatten().tolist()
    assert other not in (first, next_one)  # nor what this seed has an epoch later


def test_an_epoch_can_go_on_in_the_middle():
    """The batches that are left are those that would have come."""
    order = Order(samples=12, batch_size=4, seed=3)

    whole, rest = order.batches(5, 0), order.batches(5, 2)

    assert [b.tolist() for b in rest] == [b.tolist() for b in whole[2:]]


def test_ranks_share_every_batch():
    """Together they have the batch of a single process."""
    alone = Order(samples=12, batch_size=4, seed=0)
    both = [Order(samples=12, batch_size=4, seed=0, rank=r, world=2) for r in (0, 1)]

    for whole, *parts in zip(
        alone.batches(0, 0), *(o.batches(0, 0) for o in both), strict=True
    ):
        assert sorted(torch.cat(parts).tolist()) == sorted(whole.tolist())


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.5, 0.7, 0.95])
def test_ranks_keep_a_batch_together(kept, world):
    """However many images there must be for that, each rank has as many of them."""
    order = Order(samples=2000, batch_size=12, seed=0, world=world, kept=kept)

    steps, images = order.batches(0, 0).shape

    assert world * round(kept * images) == 12
    assert steps == order.steps == 2000 // (world * images)


def test_too_large_a_batch_is_told_by_the_size_that_was_given():
    """With what a selection makes of it."""
    with pytest.raises(
        DataError, match=r"32, chosen by \[selection\] from 64 images, is"
    ):
        Order(samples=60, batch_size=32, seed=0, kept=0.5)
    with pytest.raises(DataError, match="batch size 33 does not divide by 2 ranks"):
        Order(samples=600, batch_size=33, seed=0, world=2, kept=0.3)


@pytest.mark.parametrize(("size", "world"), [(13, 1), (5, 2)])
def test_a_batch_size_that_cannot_work_is_refused(size, world):
    """More than there is, or not divisible among the ranks."""
    with pytest.raises(DataError, match=f"batch size {size}"):
        Order(samples=12, batch_size=size, seed=0, world=world)


def test_streamed_batches_equal_resident_ones(tmp_path):
    """Worker processes change where images are decoded, and nothing else."""
    dataset = load_dataset(write_tree(tmp_path, {"red": 6, "blue": 6}))
    order = Order(samples=12, batch_size=4, seed=0)
    resident = open_batches(dataset.train, SPEC, order, CPU, resident_mib=100)
    streamed = StreamedBatches(dataset.train, SPEC, order, CPU, workers=1)

    assert isinstance(resident, ResidentBatches)
    for a, b in zip(resident.epoch(1), streamed.epoch(1), strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.indices, b.indices)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    """Not a stack trace of Pillow, and not a silent gap."""
    folder = write_tree(tmp_path, {"red": 2, "blue": 2})
    (folder / "red" / "cut.png").write_bytes(encoded("red", 9)[:50])

    with pytest.raises(DataError, match=r"red/cut\.png"):
        load_dataset(folder).train.pixels(SPEC)


def test_a_worker_that_cannot_decode_an_image_names_it_in_a_line(tmp_path):
    """Its error comes through the process boundary without torch's traceback."""
    folder = write_tree(tmp_path, {"red": 2, "blue": 2})
    (folder / "red" / "cut.png").write_bytes(encoded("red", 9)[:50])
    order = Order(samples=5, batch_size=5, seed=0)
    streamed = StreamedBatches(load_dataset(folder).train, SPEC, order, CPU, workers=1)

    with pytest.raises(DataError) as caught:
        next(streamed.epoch(0))

    assert "red/cut.png" in str(caught.value)
    assert "\n" not in str(caught.value)


class Killer:
    """Samples of which the second ends the process that reads it."""

    def __len__(self):
        return 4

    def name(self, index):
        """For messages."""
        return str(index)

    def read(self, index):
        """Bytes of an image, or the end."""
        if index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return encoded("red", index)


def test_a_worker_that_is_killed_is_an_error_of_ours(tmp_path):
    """As the system does when memory is out."""
    whole = load_dataset(write_tree(tmp_path, {"red": 2, "blue": 2})).train
    order = Order(samples=4, batch_size=4, seed=0)
    streamed = StreamedBatches(
        replace(whole, samples=Killer()), SPEC, order, CPU, workers=1
    )

    with pytest.raises(DataError, match="a process that decodes images ended"):
        next(streamed.epoch(0))
