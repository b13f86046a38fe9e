"""DPN-92: a residual path and a dense path side by side.

Chen, Li, Xiao, Jin, Yan and Feng, "Dual Path Networks", NIPS 2017 (arXiv:1707.01629).
The first channels of a block's result are added to what came in, as in ResNet (features
are reused); the last are put behind it, as in DenseNet (new ones are explored).

Two forms, since the field has two. For ImageNet the authors' pre-activation form, under
timm's names (`features.conv2_1.c1x1_a.bn` …) so that its checkpoints load. For CIFAR
the form of kuangliu/pytorch-cifar: activation behind each layer, and a 3x3 stem.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.networks.card import NetworkCard
from training.networks.initialization import kaiming
from training.networks.network import Network
from training.networks.pooling import global_average

GROUPS = 32


class Stage(NamedTuple):
    """`repeats` blocks: `width` inside, `residual` channels added, `dense` appended."""

    repeats: int
    width: int
    residual: int
    dense: int


DPN92 = (
    Stage(3, 96, 256, 16),
    Stage(4, 192, 512, 32),
    Stage(20, 384, 1024, 24),
    Stage(3, 768, 2048, 128),
)


class NormConv(nn.Module):
    """Norm, ReLU, convolution."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
    ):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)
        self.conv = nn.Conv2d(
            *(channels, out_channels, kernel, stride),
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C', H / stride, W / stride]`."""
        return self.conv(self.bn(x).relu())


class DualPathBlock(nn.Module):
    """1x1, 3x3 in 32 groups, 1x1; then add to the one path and append to the other."""

    def __init__(self, channels: int, stage: Stage, *, first: bool, stride: int):
        super().__init__()
        _, width, self.residual, dense = stage
        # The first block of a stage makes the two paths out of what it is given.
        self.projection = f"c1x1_w_s{stride}" if first else None
        if self.projection:
            wide = self.residual + 2 * dense
            self.add_module(self.projection, NormConv(channels, wide, 1, stride=stride))
        self.c1x1_a = NormConv(channels, width, 1)
        self.c3x3_b = NormConv(width, width, 3, stride=stride, groups=GROUPS)
        self.c1x1_c = NormConv(width, self.residual + dense, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, R + D, H, W]` → `[N, R + D + dense, H / stride, W / stride]`."""
        y = self.c1x1_c(self.c3x3_b(self.c1x1_a(x)))
        if self.projection:
            x = self.get_submodule(self.projection)(x)
        return merge_paths(x, y, residual=self.residual)


def merge_paths(x: Tensor, y: Tensor, *, residual: int) -> Tensor:
    """Add the first `residual` channels, put the others one behind the other."""
    x_added, x_dense = x.split([residual, x.shape[1] - residual], dim=1)
    y_added, y_dense = y.split([residual, y.shape[1] - residual], dim=1)
    return torch.cat([x_added + y_added, x_dense, y_dense], dim=1)


class DPN(Network):
    """For ImageNet: 7x7 stem, four stages, norm and ReLU, head."""

    head_name = "classifier"

    def __init__(
        self, stages: tuple[Stage, ...], *, classes: int, in_channels: int = 3
    ):
        super().__init__()
        stem = nn.Sequential()
        stem.add_module("conv", nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False))
        stem.add_module("bn", nn.BatchNorm2d(64, eps=1e-3))
        self.features = nn.Sequential()
        self.features.add_module("conv1_1", stem)
        self.features.add_module("conv1_act", nn.ReLU(inplace=True))
        self.features.add_module("conv1_pool", nn.MaxPool2d(3, stride=2, padding=1))
        channels = 64
        for number, stage in enumerate(stages, start=2):
            for position in range(1, stage.repeats + 1):
                first = position == 1
                stride = 2 if first and number > 2 else 1  # noqa: PLR2004 - the pool halved
                block = DualPathBlock(channels, stage, first=first, stride=stride)
                self.features.add_module(f"conv{number}_{position}", block)
                before = stage.residual + 2 * stage.dense if first else channels
                channels = before + stage.dense
        last = nn.Sequential()
        last.add_module("bn", nn.BatchNorm2d(channels, eps=1e-3))
        self.features.add_module("conv5_bn_ac", last)
        self.classifier = nn.Linear(channels, classes)
        self.apply(kaiming)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 2688]`."""
        x = self.features(x).relu()  # [N, 2688, H/32, W/32]
        return global_average(x)  # [N, 2688]


class CifarBlock(nn.Module):
    """The same two paths with norm and ReLU behind each layer."""

    def __init__(self, channels: int, stage: Stage, *, first: bool, stride: int):
        super().__init__()
        _, width, self.residual, dense = stage
        wide = self.residual + dense
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=1, groups=GROUPS, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.downsample = None
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, R + D, H, W]` → `[N, R + D + dense, H / stride, W / stride]`."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            x = self.downsample(x)
        return merge_paths(x, y, residual=self.residual).relu()


def cifar_channels(stage: Stage) -> int:
    """What a stage returns: residual, and a dense piece a block and one more."""
    return stage.residual + (stage.repeats + 1) * stage.dense


def build_cifar_stage(channels: int, stage: Stage, *, stride: int) -> nn.Sequential:
    """The blocks of one stage; the first of them takes `channels` and the stride."""
    blocks = nn.Sequential(CifarBlock(channels, stage, first=True, stride=stride))
    for position in range(1, stage.repeats):
        channels = stage.residual + (position + 1) * stage.dense
        blocks.append(CifarBlock(channels, stage, first=False, stride=1))
    return blocks


class CifarDPN(Network):
    """For 32x32: 3x3 stem, four stages, head."""

    head_name = "fc"

    def __init__(
        self, stages: tuple[Stage, ...], *, classes: int, in_channels: int = 3
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [64, *(cifar_channels(stage) for stage in stages)]
        self.layer1 = build_cifar_stage(widths[0], stages[0], stride=1)
        self.layer2 = build_cifar_stage(widths[1], stages[1], stride=2)
        self.layer3 = build_cifar_stage(widths[2], stages[2], stride=2)
        self.layer4 = build_cifar_stage(widths[3], stages[3], stride=2)
        self.fc = nn.Linear(widths[4], classes)
        self.apply(kaiming)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 2560]`."""
        x = self.bn1(self.conv1(x)).relu()  # [N, 64, H, W]
        x = self.layer1(x)  # [N, 320, H, W]
        x = self.layer2(x)  # [N, 672, H/2, W/2]
        x = self.layer3(x)  # [N, 1528, H/4, W/4]
        x = self.layer4(x)  # [N, 2560, H/8, W/8]
        return global_average(x)  # [N, 2560]


PAPER = "Chen et al., arXiv:1707.01629"

CARDS = (
    NetworkCard(
        name="dpn92",
        family="DPN",
        year=2017,
        paper=PAPER,
        build=partial(DPN, DPN92),
        dataset="ImageNet",
        image_size=224,
        smallest_image_size=1,
        classes=1000,
        parameters=37_668_392,
        macs=6_501_684_224,
        accuracy=79.3,
        source="paper",
    ),
    NetworkCard(
        name="dpn92_cifar",
        family="DPN",
        year=2017,
        paper=PAPER,
        build=partial(CifarDPN, DPN92),
        dataset="CIFAR-10",
        image_size=32,
        smallest_image_size=1,
        classes=10,
        parameters=34_236_634,
        macs=2_042_422_272,
        accuracy=95.16,
        source="kuangliu/pytorch-cifar",
    ),
)
