"""`build` and `table`: every network by its name, and a clear no to every other."""

import pytest
import torch

from training.networks import (
    ALIASES,
    NetworkCard,
    NetworkError,
    UnknownNetworkError,
    build,
    card,
    check_growth,
    table,
)
from training.networks.card import plain

# One network a family and form that is quick enough to run here.
QUICK = (
    "lenet5",
    "alexnet_cifar",
    "vgg11_lrn_cifar",
    "vgg16_1_bn_cifar",
    "resnet18",
    "resnet50_cifar",
    "preact_resnet18_cifar",
    "resnext29_32x4d_cifar",
    "densenet121_cifar",
    "dpn92_cifar",
    "efficientnet_lite0",
    "fastcifar_94",
)


def test_the_table_has_every_network_once():
    """Names are the keys by which configs and commands ask."""
    names = [row.name for row in table()]

    assert len(names) == len(set(names))
    assert {row.family for row in table()} == {
        "AlexNet",
        "DPN",
        "DenseNet",
        "EfficientNet-Lite",
        "FastCifar",
        "LeNet",
        "PreActResNet",
        "ResNeXt",
        "ResNet",
        "VGG",
    }


def test_a_published_accuracy_says_who_published_it():
    """A number without a source is a rumor."""
    assert all(row.source for row in table() if row.accuracy is not None)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("EfficientNet-Lite0", "efficientnet_lite0"),
        ("LeNet-5", "lenet5"),
        ("ResNet-18", "resnet18"),
        ("PreActResNet-18", "preact_resnet18_cifar"),
        ("ResNeXt-29_32x4d", "resnext29_32x4d_cifar"),
        ("DenseNet-121", "densenet121"),
        ("DPN-92", "dpn92"),
        ("VGG-16", "vgg16_3"),
        ("vgg16_bn", "vgg16_3_bn"),
    ],
)
def test_names_may_be_written_as_people_write_them(written, name):
    """Case, hyphens and the field's short names for VGG-16 are understood."""
    assert card(written).name == name


def test_no_two_names_differ_only_in_hyphens_and_case():
    """Else one of them could not be asked for; aliases are names, too."""
    names = [*(row.name for row in table()), *ALIASES]

    assert len({plain(name) for name in names}) == len(names)


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all():
    """Whoever mistypes a name should not have to open the code."""
    with pytest.raises(UnknownNetworkError) as refusal:
        build("resnet51", classes=2)

    assert "'resnet51'" in str(refusal.value)
    assert "did you mean resnet50" in str(refusal.value)
    assert all(row.name in str(refusal.value) for row in table())


def test_an_unknown_option_is_named_with_the_allowed_ones():
    """A typo in a config must not be ignored."""
    with pytest.raises(UnknownNetworkError, match=r"droput; its options: dropout"):
        build("alexnet", classes=2, droput=0.1)


@pytest.mark.parametrize("wrong", ["foo", "stem"])
def test_the_allowed_options_are_those_that_a_config_can_write(wrong):
    """No value of a TOML file is a stem, so it is neither offered nor taken."""
    options = r"group_width, groups, zero_init_residual$"
    with pytest.raises(UnknownNetworkError, match=f"{wrong}; its options: {options}"):
        build("resnet18", classes=2, **{wrong: "x"})


def test_a_bottleneck_can_be_grouped():
    """ResNeXt's are, and the option says how."""
    network = build("resnet50_cifar", classes=2, groups=2)

    assert network.layer1[0].conv2.groups == 2


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"classes": 2, "in_channels": 0}])
def test_a_network_without_classes_or_channels_is_refused(wrong):
    """Torch would build a layer of no neurons and only warn."""
    with pytest.raises(NetworkError, match="at least 1"):
        build("resnet18", **wrong)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"zero_init_residual": "no"}, "it must be of type bool, such as"),
        ("resnet18", {"groups": True}, "it must be of type int"),
        ("alexnet", {"dropout": "0.5"}, "it must be of type float"),
        ("alexnet", {"dropout": 2}, "alexnet with {'dropout': 2}: dropout probability"),
        ("resnet50", {"groups": -1}, "resnet50 with {'groups': -1}"),
        ("resnet18", {"groups": 2}, "resnet18 with .* groups is 2 .* only bottlenecks"),
        ("resnet34_cifar", {"group_width": 32}, "only bottlenecks are grouped"),
    ],
)
def test_an_option_with_a_value_that_it_cannot_have_is_refused(name, options, message):
    """Python would take "no" for yes, torch ends in a traceback, and a network without
    groups would be another one."""
    with pytest.raises(NetworkError, match=message):
        build(name, classes=2, **options)


def goes_through(row: NetworkCard, side: int) -> bool:
    """Whether anything is left of an image of this side, asked of the layers."""
    sized = {"image_size": side} if row.name == "lenet5" else {}
    try:
        with torch.device("meta"):
            network = row.build(classes=3, in_channels=3, **sized).eval()
            return network(torch.zeros(2, 3, side, side)).shape == (2, 3)
    except (RuntimeError, ZeroDivisionError, UserWarning):
        return False  # torch complains of empty maps, or warns of empty layers


@pytest.mark.parametrize("row", table(), ids=lambda row: row.name)
def test_the_smallest_size_works_and_one_pixel_less_is_refused(row):
    """What the refusal says is allowed really is, and what it refuses would fail."""
    smallest = row.smallest_image_size

    assert goes_through(row, smallest)
    assert smallest == 1 or not goes_through(row, smallest - 1)
    with pytest.raises(NetworkError, match=f"at least {smallest} pixels"):
        build(row.name, classes=3, image_size=smallest - 1)


def test_images_grow_only_where_the_network_takes_every_size():
    """The first step would end in torch's words, or the first one after a growth."""
    check_growth("vgg16_bn_cifar", 40, [32, 40])
    check_growth("lenet5", 28, [28])

    with pytest.raises(NetworkError, match=r"at least 32 pixels .* is 24"):
        check_growth("vgg16_bn_cifar", 32, [24, 32])
    with pytest.raises(NetworkError, match=r"here of 28 pixels .*sizes has 24"):
        check_growth("lenet5", 28, [24, 28])


@pytest.mark.parametrize("name", QUICK)
def test_any_size_channels_and_classes_fit(name):
    """A wide gray-and-depth image of 72x48 pixels goes through every family."""
    torch.manual_seed(0)
    network = build(name, classes=5, in_channels=2, image_size=(72, 48)).eval()
    images = torch.randn(2, 2, 72, 48)

    with torch.no_grad():
        assert network(images).shape == (2, 5)


@pytest.mark.parametrize("name", QUICK)
def test_the_logits_are_the_head_of_the_embedding(name):
    """That is the seam at which transfer learning cuts, whatever the family."""
    torch.manual_seed(0)
    network = build(name, classes=5, image_size=32).eval()
    images = torch.randn(2, 3, 32, 32)

    with torch.no_grad():
        features = network.embed(images)
        logits = network(images)
        fresh = network.replace_head(7)

        assert torch.equal(network.head(features), network(images))
    assert features.shape == (2, fresh.in_features)
    assert (logits.shape, fresh.out_features) == ((2, 5), 7)
    assert network.head is fresh


def test_residual_blocks_can_start_as_the_identity():
    """With the last gain of each block at zero, only shortcuts are left."""
    network = build("resnet50_cifar", classes=2, zero_init_residual=True)

    gains = [m.bn3.weight for m in network.modules() if hasattr(m, "bn3")]

    assert len(gains) == 16
    assert not any(gain.any() for gain in gains)
