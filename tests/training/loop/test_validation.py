"""Validation runs as many images at once as the training has shown to fit."""

import numpy as np
import pytest
import torch
from torch import nn

from classifier.manifest import Task
from training.configs.sections import DataConfig
from training.data import ArraySamples, Split
from training.loop.validation import Validation
from training.objectives.objective import build_objective


class Counting(nn.Module):
    """A network of two labels that remembers how many images came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 2))
        self.seen: list[int] = []

    def forward(self, images):
        """Brightness as the logit of both."""
        self.seen.append(len(images))
        return images.mean((1, 2, 3)).unsqueeze(1) * self.weight


@pytest.mark.parametrize(
    ("side", "batch_size", "at_once"),
    [
        (28, 20, [500, 20]),  # small ones do not depend on the training
        (288, 32, [32] * 16 + [8]),  # large ones are as many as are trained at once
        (256, 1, [7] * 74 + [2]),  # or as many as are no more pixels than small ones
    ],
)
def test_large_images_are_looked_at_in_smaller_batches(side, batch_size, at_once):
    """Half a thousand of 288 x 288 would not fit where a training at 32 does."""
    config = DataConfig(
        path="", height=side, width=side, color="gray", mean=(0.5,), std=(0.5,)
    )
    pixels = np.zeros((520, side, side, 1), np.uint8)
    labels = np.arange(520) % 2
    split = Split("validation", ArraySamples("x", pixels, np.arange(520)), labels)
    objective = build_objective(Task.MULTICLASS, labels=2)
    network = Counting()

    watched = Validation(split, config, objective, batch_size=batch_size)
    logits = watched.logits(network, "fp32")

    assert logits.shape == (520, 2)
    assert (logits == -1).all()  # what black is, normalized as in a training
    assert network.seen == at_once


def test_a_look_leaves_each_layer_in_its_mode():
    """A network that trains with frozen norms goes on with frozen norms."""
    config = DataConfig(
        path="", height=4, width=4, color="gray", mean=(0.5,), std=(0.5,)
    )
    samples = ArraySamples("x", np.zeros((2, 4, 4, 1), np.uint8), np.arange(2))
    split = Split("validation", samples, np.arange(2))
    objective = build_objective(Task.MULTICLASS, labels=2)
    norm = nn.BatchNorm2d(1).eval()
    network = nn.Sequential(norm, Counting())

    Validation(split, config, objective, batch_size=2).logits(network, "fp32")

    assert network.training
    assert network[1].training
    assert not norm.training
    assert norm.num_batches_tracked == 0
