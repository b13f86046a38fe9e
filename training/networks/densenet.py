"""DenseNet: every layer sees all layers before it.

Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks",
CVPR 2017 (arXiv:1608.06993). A layer adds 32 channels to what it was given instead of
replacing it, so features are computed once and used by all; transitions between the
blocks halve channels and size. State-dict names are torchvision's.
"""

from functools import partial

import torch
from torch import Tensor, nn

from training.networks.card import NetworkCard
from training.networks.network import Network
from training.networks.pooling import global_average

GROWTH = 32  # channels that a layer adds; k in the paper
NARROW = 4 * GROWTH  # channels of the 1x1 layer in front of each 3x3 layer


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3; the result is put behind the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, NARROW, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(NARROW)
        self.conv2 = nn.Conv2d(NARROW, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C + 32, H, W]`."""
        y = self.conv1(self.norm1(x).relu())  # [N, 128, H, W]
        y = self.conv2(self.norm2(y).relu())  # [N, 32, H, W]
        return torch.cat([x, y], dim=1)


class Transition(nn.Module):
    """Norm, ReLU, 1x1 to `out_channels`, mean over 2x2."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C', H / 2, W / 2]`."""
        return self.pool(self.conv(self.norm(x).relu()))


def build_stem(in_channels: int, *, cifar: bool) -> nn.Sequential:
    """7x7 with stride 2, norm and maximum; for small images one 3x3 layer."""
    stem = nn.Sequential()
    if cifar:
        stem.add_module("conv0", nn.Conv2d(in_channels, 64, 3, padding=1, bias=False))
        return stem
    stem.add_module("conv0", nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False))
    stem.add_module("norm0", nn.BatchNorm2d(64))
    stem.add_module("relu0", nn.ReLU(inplace=True))
    stem.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
    return stem


class DenseNet(Network):
    """Stem, four dense blocks of `repeats` layers with transitions between, head."""

    head_name = "classifier"

    def __init__(
        self,
        repeats: tuple[int, ...],
        *,
        classes: int,
        in_channels: int = 3,
        cifar: bool = False,
    ):
        super().__init__()
        self.features = build_stem(in_channels, cifar=cifar)
        channels = 64
        for block, count in enumerate(repeats, start=1):
            layers = nn.Sequential()
            for layer in range(1, count + 1):
                layers.add_module(f"denselayer{layer}", DenseLayer(channels))
                channels += GROWTH
            self.features.add_module(f"denseblock{block}", layers)
            if block < len(repeats):
                transition = Transition(channels, channels // 2)
                self.features.add_module(f"transition{block}", transition)
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, classes)
        self.apply(initialize)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 1024]`."""
        x = self.features(x).relu()  # [N, 1024, H/32, W/32]; CIFAR: [N, 1024, H/8, W/8]
        return global_average(x)  # [N, 1024]


def initialize(module: nn.Module) -> None:
    """Normal by fan-in for convolutions, and no bias at the head: torchvision's start.

    The authors' code (github.com/liuzhuang13/DenseNet) goes by fan-out.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


PAPER = "Huang et al., arXiv:1608.06993"

CARDS = (
    NetworkCard(
        name="densenet121",
        family="DenseNet",
        year=2016,
        paper=PAPER,
        build=partial(DenseNet, (6, 12, 24, 16)),
        dataset="ImageNet",
        image_size=224,
        smallest_image_size=29,
        classes=1000,
        parameters=7_978_856,
        macs=2_834_161_664,
        accuracy=74.43,
        source="torchvision",
    ),
    NetworkCard(
        name="densenet121_cifar",
        family="DenseNet",
        year=2016,
        paper=PAPER,
        build=partial(DenseNet, (6, 12, 24, 16), cifar=True),
        dataset="CIFAR-10",
        image_size=32,
        smallest_image_size=8,
        classes=10,
        parameters=6_956_298,
        macs=888_350_720,
        accuracy=95.04,
        source="kuangliu/pytorch-cifar",
    ),
)
