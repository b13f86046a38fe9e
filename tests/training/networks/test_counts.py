"""Parameters and multiply-accumulates, against what others have published."""

import pytest
import torch

from training.networks import (
    NetworkCard,
    build,
    card,
    count_macs,
    count_parameters,
    table,
)

# Parameters that papers, torchvision and kuangliu/pytorch-cifar give, typed in here by
# themselves so that a slip in a card cannot vouch for a slip in a network.
PUBLISHED_PARAMETERS = {
    "lenet5": 61_706,
    "alexnet": 61_100_840,
    "alexnet_cifar": 2_472_266,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg11_lrn": 132_863_336,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16_1": 133_638_952,
    "vgg16_1_bn": 133_647_400,
    "vgg16_3": 138_357_544,
    "vgg16_3_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
    "vgg11_bn_cifar": 9_231_114,
    "vgg13_bn_cifar": 9_416_010,
    "vgg16_1_bn_cifar": 10_009_674,
    "vgg16_3_bn_cifar": 14_728_266,
    "vgg19_bn_cifar": 20_040_522,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet18_cifar": 11_173_962,
    "resnet34_cifar": 21_282_122,
    "resnet50_cifar": 23_520_842,
    "resnet101_cifar": 42_512_970,
    "resnet152_cifar": 58_156_618,
    "preact_resnet18_cifar": 11_171_146,
    "resnext50_32x4d": 25_028_904,
    "resnext29_32x4d_cifar": 4_774_218,
    "resnext29_2x64d_cifar": 9_128_778,
    "densenet121": 7_978_856,
    "densenet121_cifar": 6_956_298,
    "dpn92": 37_668_392,
    "dpn92_cifar": 34_236_634,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "fastcifar_94": 1_971_640,
}

# Millions of multiply-accumulates at the native size, to the nearest tenth or million.
PUBLISHED_MEGAMACS = {
    "lenet5": 0.42,
    "alexnet": 714,
    "vgg11": 7609,
    "vgg13": 11308,
    "vgg16_3": 15470,
    "vgg19": 19632,
    "vgg11_bn_cifar": 152.8,
    "vgg16_3_bn_cifar": 313.2,
    "resnet18": 1814,
    "resnet34": 3664,
    "resnet50": 4089,
    "resnet101": 7801,
    "resnet152": 11514,
    "resnet18_cifar": 555.4,
    "resnet50_cifar": 1297.8,
    "resnet101_cifar": 2510.0,
    "preact_resnet18_cifar": 555.4,
    "resnext29_32x4d_cifar": 772.5,
    "resnext29_2x64d_cifar": 1409.5,
    "densenet121": 2834,
    "densenet121_cifar": 888.4,
    "dpn92_cifar": 2042.4,
    "efficientnet_lite0": 385,
    "efficientnet_lite1": 600,
    "efficientnet_lite2": 860,
    "fastcifar_94": 118.1,
    "fastcifar_95": 301.6,
}


def build_for(row: NetworkCard, device: str = "meta") -> torch.nn.Module:
    """The network as its card describes it, without memory for its weights."""
    with torch.device(device):
        return build(row.name, classes=row.classes, in_channels=row.in_channels)


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_the_number_of_parameters_is_the_published_one(name):
    """A layer too many, a bias too few or a wrong width would change the sum."""
    assert count_parameters(build_for(card(name))) == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", PUBLISHED_MEGAMACS)
def test_the_work_an_image_makes_is_the_published_one(name):
    """Strides and padding do not change the parameters, but they change this."""
    row = card(name)
    shape = (row.image_size, row.image_size, row.in_channels)
    published = PUBLISHED_MEGAMACS[name]
    tolerance = 0.005 if published < 1 else 0.05 if published % 1 else 0.5

    assert count_macs(build_for(row), shape=shape) / 1e6 == pytest.approx(
        published, abs=tolerance + 0.01
    )


@pytest.mark.parametrize("row", table(), ids=lambda row: row.name)
def test_the_card_says_what_the_network_is(row):
    """Every row of the table is counted, also where nobody published a number."""
    network = build_for(row)
    shape = (row.image_size, row.image_size, row.in_channels)

    assert (row.parameters, row.macs) == (
        count_parameters(network),
        count_macs(network, shape=shape),
    )


def test_counting_leaves_the_network_as_it_was():
    """No hook stays behind, and a network in training stays in training."""
    network = build_for(card("resnet18_cifar"))

    first = count_macs(network, shape=(32, 32, 3))

    assert count_macs(network, shape=(32, 32, 3)) == first
    assert network.training
    assert not any(m._forward_hooks for m in network.modules())


def test_macs_of_one_layer_are_those_done_by_hand():
    """A 3x3 layer from 3 to 8 channels in 2 groups of a 10x6 image, and 5 classes."""
    layer = torch.nn.Conv2d(4, 8, 3, padding=1, groups=2)
    network = torch.nn.Sequential(layer, torch.nn.Flatten(), torch.nn.Linear(480, 5))

    counted = count_macs(network, shape=(10, 6, 4))

    assert counted == 10 * 6 * 8 * (2 * 3 * 3) + 480 * 5
