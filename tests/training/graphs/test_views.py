"""Views: the same images mirrored and shifted, and the mean of their logits."""

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from classifier.session import Session
from training.graphs.export import export_graph
from training.graphs.views import WEIGHTS, Viewed
from training.networks import build

Pixels = NDArray[np.uint8]  # [N, H, W, C]


def views(pixels: Pixels) -> list[Pixels]:
    """The six views, of pixels: plain, down-right and up-left, each with its mirror."""
    height, width = pixels.shape[1:3]
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    moved = [padded[:, at : at + height, at : at + width] for at in (1, 0, 2)]
    return [view for one in moved for view in (one, one[:, :, ::-1])]


@pytest.mark.parametrize("count", sorted(WEIGHTS))
def test_the_weights_of_the_views_sum_to_one(count: int):
    """So a constant network answers the same with any number of views."""
    assert len(WEIGHTS[count]) == count
    assert sum(WEIGHTS[count]) == pytest.approx(1)


def test_six_views_are_the_image_its_mirror_and_their_shifts():
    """By a pixel up-left and down-right, the border reflected."""
    seen = Viewed(nn.Flatten(), 6)._seen(torch.arange(16.0).view(1, 1, 4, 4))
    plain, mirror, down_right, _, up_left, _ = (view[0, 0] for view in seen)

    assert torch.equal(mirror, plain.flip(1))
    assert torch.equal(down_right[1:, 1:], plain[:-1, :-1])
    assert torch.equal(up_left[:-1, :-1], plain[1:, 1:])


@pytest.mark.parametrize("count", sorted(WEIGHTS))
def test_a_graph_of_several_views_has_each_layer_once(count: int):
    """The views are one batch; the answer is their weighted mean, one by one."""
    torch.manual_seed(0)
    network = build("lenet5", classes=3, in_channels=1, image_size=(32, 32)).eval()
    facts = {"shape": (32, 32, 1), "mean": (0.5,), "std": (0.25,), "classes": 3}
    plain, seen = (
        export_graph(each, **facts) for each in (network, Viewed(network, count))
    )
    pixels = np.random.default_rng(0).integers(256, size=(2, 32, 32, 1), dtype=np.uint8)
    session = Session.load(plain)

    each = zip(WEIGHTS[count], views(pixels), strict=False)
    mean = sum(weight * session.run(view) for weight, view in each)

    assert convolutions(plain) == convolutions(seen) > 0
    assert np.allclose(Session.load(seen).run(pixels), mean, atol=1e-5)
    assert not np.allclose(session.run(pixels), mean, atol=1e-4)


def convolutions(graph: bytes) -> int:
    """How many the graph has."""
    nodes = onnx.load_from_string(graph).graph.node
    return sum(node.op_type == "Conv" for node in nodes)


class Nth(nn.Module):
    """Says of the nth image it sees that it is the nth."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [V, 6]."""
        return torch.eye(6)[: len(images)]


def test_the_middle_counts_twice_as_much_as_each_shift():
    """It and its mirror image have a quarter each, the four others an eighth."""
    (answer,) = Viewed(Nth(), 6)(torch.zeros(1, 1, 4, 4)).tolist()

    assert answer == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
