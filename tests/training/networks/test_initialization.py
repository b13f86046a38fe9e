"""Fresh networks start as those that they are compared with."""

import math

import pytest
import torch
from torch import nn

from training.networks import build
from training.networks.network import Network


def wide_layers(network: Network, kind: type[nn.Module]) -> dict[str, nn.Module]:
    """Layers of many weights, whose deviation is known well."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, kind) and layer.weight.numel() >= 3_000
    }


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "preact_resnet18_cifar",
        "dpn92_cifar",
        "vgg11",
        "vgg11_bn_cifar",
        "efficientnet_lite0",
    ],
)
def test_filters_start_with_the_variance_that_keeps_the_gradients(name):
    """By the outputs that a pixel goes to, as torchvision and TensorFlow count: the
    latter those of its own group alone."""
    torch.manual_seed(0)
    filters = wide_layers(build(name, classes=10), nn.Conv2d)

    assert len(filters) > 5
    for layer in filters.values():
        groups = layer.groups if name.startswith("efficientnet") else 1
        fan_out = layer.out_channels // groups * math.prod(layer.kernel_size)
        deviation = layer.weight.std().item()
        assert deviation == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)


def test_filters_of_densenet_start_by_what_they_read():
    """As torchvision's: fan-in, and a head without a bias to begin with."""
    torch.manual_seed(0)
    network = build("densenet121", classes=10)

    for layer in wide_layers(network, nn.Conv2d).values():
        fan_in = layer.in_channels * math.prod(layer.kernel_size)
        deviation = layer.weight.std().item()
        assert deviation == pytest.approx(math.sqrt(2 / fan_in), rel=0.1)
    assert network.head.bias.abs().max() == 0


def test_linear_layers_start_small_in_vgg_and_by_their_outputs_in_lite():
    """A deviation of 0.01, and uniform up to 1 / sqrt(outputs)."""
    torch.manual_seed(0)
    vgg, lite = build("vgg11", classes=10), build("efficientnet_lite0", classes=10)

    for layer in wide_layers(vgg, nn.Linear).values():
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
    limit = 1 / math.sqrt(10)
    assert lite.head.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert lite.head.weight.std().item() == pytest.approx(
        limit / math.sqrt(3), rel=0.05
    )
    for network in (vgg, lite):
        assert network.head.bias.abs().max() == 0


def test_the_norms_of_lite_forget_as_slowly_as_tensorflows():
    """Its momentum of 0.99 is 0.01 to torch."""
    network = build("efficientnet_lite0", classes=10)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}
