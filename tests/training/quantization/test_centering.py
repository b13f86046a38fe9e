"""Channels around zero: nothing else changes, and the steps of 8 bits get finer."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from tests.training.quantization.nets import (
    change_constant,
    give_out,
    images,
    net,
    split_into_groups,
)
from training.graphs.graph import add_constant, producers, run, serialize
from training.quantization.centering import center_channels, movable_tensors
from training.quantization.quantize import measure, simplify
from training.quantization.ranges import watch

ORDER = ["c2", "c3", "a"]  # the bottleneck, its branch, and the sum of both


def off_center(model: ModelProto) -> ModelProto:
    """The network whose bottleneck has channels far above and far below zero."""
    model = simplify(model.SerializeToString())
    far = np.where(np.arange(12) % 2, 30, -30).astype(np.float32)
    change_constant(model, "b2", lambda _: far)
    return model


def middle(model: ModelProto, tensor: str) -> np.ndarray:
    """The middle of each channel of a tensor over the images, [C]."""
    seen = np.concatenate([s[tensor] for s in watch(model, [tensor], images())])
    low, high = (f(seen, axis=(0, 2, 3)) for f in (np.min, np.max))
    return (low + high) / 2


def test_the_logits_stay_and_the_channels_move():
    """Off by the last bits of fp32; each convolution's channels lie around zero."""
    model = off_center(net())
    before = run(serialize(model), images(seed=7))

    center_channels(model, images())

    onnx.checker.check_model(model, full_check=True)
    after = run(serialize(model), images(seed=7))
    assert np.abs(after - before).max() < 1e-4 * np.abs(before).max()
    for tensor in ORDER[:2]:
        assert np.abs(middle(model, tensor)).max() < 1e-3


def test_the_ranges_get_narrower():
    """Channels at -30 and at +30 no longer share 60."""
    model = off_center(net())
    wide = dict(measure(net().SerializeToString(), images()).ranges)
    apart = {t: middle(model, t) for t in ["c2", "a"]}

    ranges = measure(serialize(model), images()).ranges

    for tensor, middles in apart.items():
        low, high = ranges[tensor]
        assert np.ptp(middles) > 50  # in the graph as it came
        assert high - low < 30
    assert ranges["r0"] == wide["r0"]


def test_a_bias_that_others_share_stays_theirs():
    """The branch and the bottleneck have one bias; each gets its own."""
    model = simplify(net().SerializeToString())
    branch = producers(model)["c3"]
    branch.input[2] = "b2"
    before = run(serialize(model), images(seed=7))

    center_channels(model, images())

    after = run(serialize(model), images(seed=7))
    assert np.abs(after - before).max() < 1e-4 * np.abs(before).max()
    assert producers(model)["c2"].input[2] != producers(model)["c3"].input[2]


def padded_expansion(model: ModelProto) -> None:
    """The layer that reads the sum looks beyond the border, at zeros."""
    expand = producers(model)["c4"]
    expand.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))


def padded_by_name(model: ModelProto) -> None:
    expand = producers(model)["c4"]
    expand.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))


def activated_sum(model: ModelProto) -> None:
    """A ReLU reads the sum: what is below zero counts."""
    expand = producers(model)["c4"]
    model.graph.node.append(helper.make_node("Relu", ["a"], ["positive"], name="relu"))
    expand.input[0] = "positive"


def grouped_expansion(model: ModelProto) -> None:
    split_into_groups(model, "c4", 12)


def sum_given_out(model: ModelProto) -> None:
    give_out(model, "a")


@pytest.mark.parametrize(
    "change",
    [
        padded_expansion,
        padded_by_name,
        activated_sum,
        grouped_expansion,
        sum_given_out,
    ],
    ids=lambda change: change.__name__,
)
def test_what_others_read_holds_the_whole_sum_in_place(change):
    """Neither the sum nor its summands move, and the logits stay to the bit."""
    model = simplify(net().SerializeToString())
    assert movable_tensors(model) == {"c2", "c3", "a"}
    change(model)

    assert movable_tensors(model) == set()

    before = serialize(model)
    center_channels(model, images())
    assert serialize(model) == before


def test_a_constant_is_no_channel_to_move():
    """A sum with a constant may have one channel where the tensor has many."""
    model = simplify(net().SerializeToString())
    node = producers(model)["a"]
    node.input[1] = add_constant(model, "one", np.ones((1, 1, 1, 1), np.float32))

    assert movable_tensors(model) == {"a", "c3"}  # which nothing reads any more
    before = run(serialize(model), images(seed=7))
    center_channels(model, images())
    assert np.array_equal(run(serialize(model), images(seed=7)), before)


def test_a_summand_of_one_channel_for_all_stays_in_place():
    """As of spatial attention: what is taken off it would come back C times."""
    model = net()
    narrow = producers(model)["c3"]
    narrow.input[1:] = [
        add_constant(model, "one", np.ones((1, 12, 1, 1), np.float32)),
        add_constant(model, "bias", np.array([30], np.float32)),
    ]
    model = simplify(model.SerializeToString())
    before = run(serialize(model), images(seed=7))

    center_channels(model, images())

    assert "c3" not in movable_tensors(model)
    after = run(serialize(model), images(seed=7))
    assert np.abs(after - before).max() < 1e-4 * np.abs(before).max()
