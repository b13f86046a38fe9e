"""State-dict names and shapes, so that published checkpoints load unchanged."""

import pytest
import torch

from training.networks import build

# Tensors of the official state dicts, running averages and counters included.
TENSORS = {
    "alexnet": 16,
    "vgg16_3": 32,
    "vgg16_3_bn": 97,
    "resnet18": 122,
    "resnet34": 218,
    "resnet50": 320,
    "resnet101": 626,
    "resnet152": 932,
    "resnext50_32x4d": 320,
    "densenet121": 727,
    "efficientnet_lite0": 296,
    "efficientnet_lite1": 386,
    "efficientnet_lite2": 386,
}

# Numbers in buffers (means, variances, counters).
BUFFERS = {
    "resnet18": 9_620,
    "resnet34": 17_060,
    "resnet50": 53_173,
    "resnet101": 105_448,
    "resnet152": 151_579,
    "densenet121": 83_769,
    "efficientnet_lite0": 42_065,
    "efficientnet_lite1": 53_728,
    "efficientnet_lite2": 58_160,
    "vgg16_3": 0,
    "vgg16_3_bn": 8_461,
}

# One or more tensors of each kind of layer, under the names of torchvision (timm for
# DPN and EfficientNet-Lite, which torchvision lacks).
SHAPES = {
    "alexnet": {
        "features.0.weight": (64, 3, 11, 11),
        "features.3.weight": (192, 64, 5, 5),
        "features.6.weight": (384, 192, 3, 3),
        "features.8.weight": (256, 384, 3, 3),
        "features.10.bias": (256,),
        "classifier.1.weight": (4096, 9216),
        "classifier.4.weight": (4096, 4096),
        "classifier.6.weight": (1000, 4096),
    },
    "vgg11": {
        "features.0.weight": (64, 3, 3, 3),
        "features.18.weight": (512, 512, 3, 3),
        "classifier.0.weight": (4096, 25088),
        "classifier.3.weight": (4096, 4096),
        "classifier.6.bias": (1000,),
    },
    "vgg16_3": {
        "features.28.weight": (512, 512, 3, 3),
        "features.14.weight": (256, 256, 3, 3),
    },
    "vgg16_1": {
        "features.14.weight": (256, 256, 1, 1),
        "features.28.weight": (512, 512, 1, 1),
    },
    "vgg16_3_bn": {
        "features.0.bias": (64,),
        "features.1.running_mean": (64,),
        "features.40.weight": (512, 512, 3, 3),
        "features.41.weight": (512,),
    },
    "vgg19": {"features.34.weight": (512, 512, 3, 3)},
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.num_batches_tracked": (),
        "layer4.1.bn2.bias": (512,),
        "fc.weight": (1000, 512),
    },
    "resnet50": {
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer3.5.conv3.weight": (1024, 256, 1, 1),
        "fc.weight": (1000, 2048),
    },
    "resnet152": {"layer3.35.bn3.weight": (1024,)},
    "resnext50_32x4d": {
        "layer1.0.conv2.weight": (128, 4, 3, 3),
        "layer4.2.conv2.weight": (1024, 32, 3, 3),
    },
    "densenet121": {
        "features.conv0.weight": (64, 3, 7, 7),
        "features.norm0.weight": (64,),
        "features.denseblock1.denselayer1.conv1.weight": (128, 64, 1, 1),
        "features.denseblock3.denselayer24.norm1.running_mean": (992,),
        "features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3),
        "features.transition3.conv.weight": (512, 1024, 1, 1),
        "features.norm5.weight": (1024,),
        "classifier.weight": (1000, 1024),
    },
    "dpn92": {
        "features.conv1_1.conv.weight": (64, 3, 7, 7),
        "features.conv1_1.bn.bias": (64,),
        "features.conv2_1.c1x1_w_s1.conv.weight": (288, 64, 1, 1),
        "features.conv2_1.c1x1_a.bn.weight": (64,),
        "features.conv3_1.c1x1_w_s2.conv.weight": (576, 336, 1, 1),
        "features.conv4_20.c3x3_b.conv.weight": (384, 12, 3, 3),
        "features.conv5_3.c1x1_c.conv.weight": (2176, 768, 1, 1),
        "features.conv5_bn_ac.bn.weight": (2688,),
    },
    "efficientnet_lite0": {
        "conv_stem.weight": (32, 3, 3, 3),
        "bn1.weight": (32,),
        "blocks.0.0.conv_dw.weight": (32, 1, 3, 3),
        "blocks.0.0.conv_pw.weight": (16, 32, 1, 1),
        "blocks.2.1.conv_dw.weight": (240, 1, 5, 5),
        "blocks.6.0.conv_pwl.weight": (320, 1152, 1, 1),
        "blocks.6.0.bn3.running_var": (320,),
        "conv_head.weight": (1280, 320, 1, 1),
        "classifier.weight": (1000, 1280),
    },
    # kuangliu/pytorch-cifar, `shortcut` and `linear` apart (see test_weights)
    "preact_resnet18_cifar": {
        "layer1.0.bn1.weight": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
    },
    "resnext29_32x4d_cifar": {
        "conv1.weight": (64, 3, 1, 1),
        "layer1.0.conv2.weight": (128, 4, 3, 3),
        "layer3.2.conv3.weight": (1024, 512, 1, 1),
    },
    "dpn92_cifar": {
        "layer1.0.conv3.weight": (272, 96, 1, 1),
        "layer3.19.conv1.weight": (384, 1504, 1, 1),
        "fc.weight": (10, 2560),
    },
}


def state(name: str) -> dict[str, torch.Tensor]:
    """The state dict at the published number of classes, without memory."""
    with torch.device("meta"):
        classes = 10 if name.endswith("_cifar") else 1000
        return build(name, classes=classes).state_dict()


@pytest.mark.parametrize("name", TENSORS)
def test_a_state_dict_has_as_many_tensors_as_the_official_one(name):
    """A checkpoint with more or fewer could not be loaded strictly."""
    assert len(state(name)) == TENSORS[name]


@pytest.mark.parametrize("name", BUFFERS)
def test_the_running_averages_hold_as_many_numbers_as_the_official_ones(name):
    """Each batch norm has two averages a channel and a counter."""
    with torch.device("meta"):
        network = build(name, classes=1000)

    assert sum(b.numel() for b in network.buffers()) == BUFFERS[name]


@pytest.mark.parametrize("name", SHAPES)
def test_layers_have_the_official_names_and_shapes(name):
    """Samples of each kind of layer, written out from the official definitions."""
    found = state(name)

    assert {key: tuple(found[key].shape) for key in SHAPES[name]} == SHAPES[name]


def test_a_resnet_lists_its_layers_in_the_official_order():
    """The whole list of ResNet-18, built from the rule and not from the network."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = ["conv1.weight", *(f"bn1.{part}" for part in norm)]
    for layer, block in ((layer, block) for layer in (1, 2, 3, 4) for block in (0, 1)):
        at = f"layer{layer}.{block}"
        for number in (1, 2):
            expected.append(f"{at}.conv{number}.weight")
            expected += [f"{at}.bn{number}.{part}" for part in norm]
        if layer > 1 and block == 0:
            expected.append(f"{at}.downsample.0.weight")
            expected += [f"{at}.downsample.1.{part}" for part in norm]
    expected += ["fc.weight", "fc.bias"]

    assert list(state("resnet18")) == expected
