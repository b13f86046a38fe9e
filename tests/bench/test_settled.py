"""Settled networks can be compared: their numbers do not hang on the last digit."""

import copy

import pytest
import torch
from torch import nn

from bench.settled import LAST, settle
from training.networks import build, table


def rounding(network: nn.Module, images: torch.Tensor) -> float:
    """The largest difference of a logit between float32 and float64."""
    with torch.no_grad():
        single = network(images).double()
        double = copy.deepcopy(network).double()(images.double())
    return (single - double).abs().max().item()


@pytest.fixture(scope="module")
def images():
    """Noise, float [N, C, H, W]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 32, 32, generator=generator)


@pytest.mark.slow
def test_torch_agrees_with_itself_in_a_deep_settled_network(images):
    """And does not, to the digits that parity asks for, where only norms have settled.

    Nothing is exported here: the difference is float32's own.
    """
    torch.manual_seed(0)
    plain = build("resnet101_cifar", classes=10)
    settled = copy.deepcopy(plain)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        plain.train()(images)
    settle(settled, settled, images)

    assert rounding(settled, images) < 1e-5
    assert rounding(plain.eval(), images) > 10 * rounding(settled, images)


def test_every_layer_still_takes_part(images):
    """Each residual branch changes the logits."""
    torch.manual_seed(0)
    network = build("resnet18_cifar", classes=10)
    settle(network, network, images)
    with torch.no_grad():
        whole = network(images)
        for block in network.modules():
            if type(block) not in LAST:
                continue
            last = block.get_submodule(LAST[type(block)])
            kept = last.weight.clone()
            last.weight.zero_()
            assert (network(images) - whole).abs().max() > 1e-3
            last.weight.copy_(kept)


def test_all_kinds_of_residual_blocks_are_known():
    """A block with a shortcut that is not in the table would stay wild."""
    kinds = set()
    for row in table():
        with torch.device("meta"):
            network = build(row.name, classes=2)
        for module in network.modules():
            named = hasattr(module, "downsample") or hasattr(module, "residual")
            if named:
                kinds.add(type(module))

    assert kinds == set(LAST)
