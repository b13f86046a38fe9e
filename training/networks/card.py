"""What is known of a network before it is trained: a row of the table."""

from collections.abc import Callable
from dataclasses import dataclass

from training.networks.network import Network


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """Published facts and the function that builds the network they are about.

    `parameters` and `macs` (multiply-accumulates of one image, in convolutions and
    linear layers) hold for the default size, channels and classes; tests count them.
    `accuracy` is top-1 in percent as published (`source` says by whom), not ours.
    """

    name: str
    family: str
    year: int
    paper: str
    build: Callable[..., Network]
    dataset: str
    image_size: int
    smallest_image_size: int
    classes: int
    in_channels: int = 3
    parameters: int
    macs: int
    accuracy: float | None = None
    source: str = ""


def plain(name: str) -> str:
    """`EfficientNet-Lite0` and `efficientnet_lite0` → `efficientnetlite0`.

    Hyphens are dropped and not made underscores, for the names of papers have them
    where ours have nothing (ResNet-18) and none where ours have one (PreActResNet-18).
    """
    return name.lower().replace("-", "").replace("_", "")
