"""Given the same weights, the networks answer as the official implementations do."""

import zlib

import numpy as np
import pytest
import torch

from training.networks import build

# Logits of three classes, computed in float64 from `known_weights` and a `known_image`
# of so many pixels by torchvision 0.29.1 (ResNet-18, ResNeXt-50, DenseNet), timm 1.0.31
# (dpn92, tf_efficientnet_lite0), kuangliu/pytorch-cifar (those ending in _cifar) and
# KellerJordan/cifar10-airbench (lib_airbench95.py at the widths of 94).
OFFICIAL = {
    "vgg11_bn_cifar": (32, (0.537712, -2.15714, 0.0197319)),
    "resnet18": (64, (0.386774, 8.25774, 5.53786)),
    "resnext50_32x4d": (64, (1485.14, -664.784, 599.069)),
    "preact_resnet18_cifar": (32, (-0.573007, -0.650539, -0.495163)),
    "resnext29_32x4d_cifar": (32, (-22.7858, 49.1533, -5.49696)),
    "densenet121": (64, (-4.64212, -2.85239, -0.40359)),
    "dpn92": (64, (-676.71, -7673.56, -43851.4)),
    "dpn92_cifar": (32, (-22699.8, 65670.3, -34952.3)),
    "efficientnet_lite0": (64, (0.663012, -0.871231, -0.506683)),
    "fastcifar_94": (32, (-0.0585423, -0.0296703, 0.00365302)),
}


def spread(name, shape):
    """Numbers of mean 0 and deviation 1 that follow from the name by integers alone."""
    place = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64)
    x = (place * 2654435761 + zlib.crc32(name.encode())) % 2**32
    for _ in range(2):  # neighbors should have nothing in common
        x = (x ^ (x >> 16)) * 73244475 % 2**32
    uniform = (x ^ (x >> 16)) / 2**32 - 0.5
    return torch.from_numpy((uniform * 12**0.5).astype(np.float32).reshape(shape))


def known_weights(state):
    """Weights for a state dict, with which filters nearly keep the variance.

    Norms have small variances, so that their epsilon is seen.
    """
    known = {}
    for name, tensor in state.items():
        values = spread(name, tuple(tensor.shape))
        kind = name.rpartition(".")[2]
        if kind == "num_batches_tracked":
            known[name] = torch.tensor(1)
        elif tensor.ndim > 1:
            known[name] = values * (0.2 / tensor[0].numel()) ** 0.5
        elif kind == "running_var":
            known[name] = 0.1 + 0.02 * values
        elif kind == "weight":
            known[name] = 1 + 0.2 * values
        else:
            known[name] = 0.1 * values
    return known


def known_image(side):
    """Float32 [1, 3, side, side]."""
    return spread("image", (1, 3, side, side))


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_network_computes_what_the_official_one_computes(name):
    """Order of layers, strides, epsilons, padding: all that names do not tell."""
    side, expected = OFFICIAL[name]
    network = build(name, classes=3).eval()
    network.load_state_dict(known_weights(network.state_dict()))

    with torch.no_grad():
        logits = network.double()(known_image(side).double())[0]

    # of six digits; where logits are huge, a last activation changes the fifth or sixth
    wanted, scale = torch.tensor(expected).double(), max(map(abs, expected))
    assert torch.allclose(logits, wanted, rtol=0, atol=4e-6 * scale)
