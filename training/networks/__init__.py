"""name → **network**: every architecture of the package behind one function.

    network = build("resnet18", classes=5)      # normalized float [N, 3, H, W] → [N, 5]
    network.embed(images)                       # [N, D]: what the head sees
    network.head                                # the last nn.Linear
    network.replace_head(7)                     # a fresh one, for other classes
    load_weights(network, path)                 # a published checkpoint, checked
    count_macs(network, shape=(224, 224, 3))    # what an image costs

Names ending in `_cifar` are the field's forms for images of about 32x32.

The families:

lenet              LeNet-5, the network that read checks
alexnet            AlexNet
vgg                only 3x3 convolutions, and many of them
resnet             layers that learn what to add
preact_resnet      the same with norm and ReLU before each convolution
resnext            a bottleneck split into many narrow ones
densenet           every layer sees all layers before it
dpn                a residual path and a dense path side by side
efficientnet_lite  EfficientNet made for mobile devices
fastcifar          the network of the CIFAR-10 speed records

And what they share:

network         images → embedding → logits: what every network can do
modes           network → the same network, evaluating for a while
card            what is known of one before it is trained
initialization  fresh layers → layers that train
pooling         feature map of any size → feature map of one size
same_padding    convolution → the same with TensorFlow's padding
weights         checkpoint → network with those weights
macs            network, image size → what an image costs
errors          what can go wrong between a name, a checkpoint and a network
"""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from training.networks import (
    alexnet,
    densenet,
    dpn,
    efficientnet_lite,
    fastcifar,
    lenet,
    preact_resnet,
    resnet,
    resnext,
    vgg,
)
from training.networks.card import NetworkCard, plain
from training.networks.errors import (
    CheckpointMismatchError,
    NetworkError,
    UnknownNetworkError,
)
from training.networks.macs import count_macs, count_parameters
from training.networks.network import Network
from training.networks.weights import load_weights

__all__ = [
    "CheckpointMismatchError",
    "Network",
    "NetworkCard",
    "NetworkError",
    "UnknownNetworkError",
    "build",
    "card",
    "check_growth",
    "count_macs",
    "count_parameters",
    "load_weights",
    "table",
]

FAMILIES = (
    lenet,
    alexnet,
    vgg,
    resnet,
    preact_resnet,
    resnext,
    densenet,
    dpn,
    efficientnet_lite,
    fastcifar,
)

# Names by which the field also knows some of them.
ALIASES = {
    "vgg16": "vgg16_3",
    "vgg16_bn": "vgg16_3_bn",
    "vgg16_cifar": "vgg16_3_cifar",
    "vgg16_bn_cifar": "vgg16_3_bn_cifar",
    "preact_resnet18": "preact_resnet18_cifar",
    "resnext29_32x4d": "resnext29_32x4d_cifar",
    "resnext29_2x64d": "resnext29_2x64d_cifar",
}

# What a config can write; of other types, as ResNet's stem, the name decides.
OPTION_TYPES = (bool, int, float, str)


def table() -> tuple[NetworkCard, ...]:
    """A card for each network, family by family in the order of their years."""
    return tuple(row for family in FAMILIES for row in family.CARDS)


def card(name: str) -> NetworkCard:
    """The card of one network; case, hyphens and underscores do not matter.

    Raises:
        UnknownNetworkError: with the nearest names and all that are allowed.
    """
    cards = {row.name: row for row in table()}
    names = {plain(known): known for known in cards}
    names |= {plain(alias): known for alias, known in ALIASES.items()}
    wanted = plain(name)
    if wanted not in names:
        close = difflib.get_close_matches(wanted, names, n=3)
        near = dict.fromkeys(names[known] for known in close)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UnknownNetworkError(
            f"no network is called {name!r}; {hint}allowed: {', '.join(cards)}"
        )
    return cards[names[wanted]]


def build(
    name: str,
    *,
    classes: int,
    in_channels: int = 3,
    image_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> Network:
    """A fresh network with random weights.

    Args:
        name: one of `table()`, as `card` reads it.
        classes: K, the number of logits; 1 for binary.
        in_channels: C of the images.
        image_size: side, or (height, width), of the images to come. Needed only where
            it shapes the layers (LeNet-5); elsewhere it is checked to be large enough.
        options: what else the family's class takes and a config can write, such as
            `dropout`.

    Raises:
        UnknownNetworkError: no such network, or no such option.
        NetworkError: classes or channels below 1, images too small for the network, or
            an option with a value that it cannot have.
    """
    row = card(name)
    if classes < 1 or in_channels < 1:
        raise NetworkError(
            f"{row.name}: classes is {classes} and in_channels {in_channels}; "
            "both must be at least 1"
        )
    allowed = inspect.signature(row.build).parameters
    if image_size is not None:
        check_size(row, image_size)
        if "image_size" in allowed:
            options["image_size"] = image_size
    own = {n for n, option in allowed.items() if type(option.default) in OPTION_TYPES}
    own -= {"classes", "in_channels", "image_size"}
    unknown = sorted(set(options) - own - {"image_size"})
    if unknown:
        raise UnknownNetworkError(
            f"{row.name} does not know {', '.join(unknown)}; "
            f"its options: {', '.join(sorted(own)) or 'none'}"
        )
    for option, value in options.items():
        check_option(row, option, value, allowed[option].default)
    try:
        return row.build(classes=classes, in_channels=in_channels, **options)
    # how torch's layers refuse them
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise NetworkError(f"{row.name} with {options}: {error}") from error


def check_option(row: NetworkCard, option: str, value: Any, default: Any) -> None:
    """Refuse a value of another type than the default's: the word "no" counts as yes.

    Raises:
        NetworkError: naming the type that works.
    """
    if option == "image_size":
        return
    kind = type(default)
    right = type(value) is kind or (kind is float and type(value) is int)
    if not right:
        raise NetworkError(
            f"{row.name}: {option} is {value!r}; it must be of type {kind.__name__}, "
            f"such as {default!r}"
        )


def check_size(row: NetworkCard, image_size: int | tuple[int, int]) -> None:
    """Refuse images of which nothing would be left after the last halving.

    Raises:
        NetworkError: naming the smallest side that works.
    """
    side = image_size if isinstance(image_size, int) else min(image_size)
    if side < row.smallest_image_size:
        raise NetworkError(
            f"{row.name} needs images of at least {row.smallest_image_size} pixels "
            f"a side; image_size is {image_size}"
        )


def check_growth(name: str, image_size: int, sides: Iterable[int]) -> None:
    """Refuse squares that grow to `image_size` where the network cannot take them all.

    Raises:
        NetworkError: naming the side that it cannot take.
    """
    row = card(name)
    one_size = "image_size" in inspect.signature(row.build).parameters
    for side in sides:
        check_size(row, side)
        if one_size and side != image_size:
            raise NetworkError(
                f"{row.name} is built for images of one size, here of {image_size} "
                f"pixels a side; augment.sizes has {side}"
            )
