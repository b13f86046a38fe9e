"""A network that is looked at goes on as it was."""

import pytest
import torch
from torch import nn

from training.networks.macs import count_macs
from training.networks.modes import evaluating


def frozen() -> nn.Sequential:
    """A network that trains with a frozen norm."""
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2).eval())


def modes(network: nn.Module) -> list[bool]:
    """Which of its layers train."""
    return [module.training for module in network.modules()]


def test_each_layer_gets_its_own_mode_back():
    """And one that came meanwhile that of the network."""
    network = frozen()

    with evaluating(network):
        inside = modes(network)
        network.append(nn.Dropout().eval())

    assert inside == [False, False, False]
    assert modes(network) == [True, True, False, True]


def test_an_error_leaves_no_other_mode():
    """Whoever catches it trains on."""
    network = frozen()

    with pytest.raises(RuntimeError), evaluating(network):
        network(torch.zeros(1, 5, 2, 2))

    assert modes(network) == [True, True, False]


def test_what_an_image_costs_is_counted_without_a_trace():
    """Neither in the mode of a frozen norm, nor in its statistics."""
    network = frozen()

    assert count_macs(network, shape=(4, 4, 3)) == 4 * 4 * 3 * 2
    assert modes(network) == [True, True, False]
    assert network[1].num_batches_tracked == 0
