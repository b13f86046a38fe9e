"""ResNet: layers that learn what to add.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016
(arXiv:1512.03385). A block computes a change and adds it to what came in, so a hundred
layers can be no worse than ten: each of them may learn to add nothing. Strides sit on
the 3x3 layer of a bottleneck, as in torchvision, whose state-dict names we keep.
"""

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from training.networks.card import NetworkCard
from training.networks.initialization import kaiming
from training.networks.network import Network
from training.networks.pooling import global_average


class Stem(NamedTuple):
    """The first convolution, and whether a 3x3 maximum halves the size behind it."""

    kernel: int
    stride: int
    pool: bool


IMAGENET_STEM = Stem(kernel=7, stride=2, pool=True)
CIFAR_STEM = Stem(kernel=3, stride=1, pool=False)
POINTWISE_STEM = Stem(kernel=1, stride=1, pool=False)


class Shape(NamedTuple):
    """Channels and stride of one block; `width` is that of its inner 3x3 layer."""

    channels: int
    width: int
    out_channels: int
    stride: int
    groups: int


def projection(shape: Shape) -> nn.Sequential | None:
    """A 1x1 layer where the block changes channels or size; None where it does not."""
    if shape.stride == 1 and shape.channels == shape.out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(
            shape.channels, shape.out_channels, 1, stride=shape.stride, bias=False
        ),
        nn.BatchNorm2d(shape.out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 layers and the way round them (ResNet-18 and 34)."""

    expansion = 1

    def __init__(self, shape: Shape):
        super().__init__()
        channels, width, out_channels, stride, _ = shape
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(shape)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose output is added."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C', H / stride, W / stride]`."""
        identity = x if self.downsample is None else self.downsample(x)
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (identity + y).relu()


class Bottleneck(nn.Module):
    """1x1 to narrow, 3x3 (perhaps in groups), 1x1 to widen (ResNet-50 and up)."""

    expansion = 4

    def __init__(self, shape: Shape):
        super().__init__()
        channels, width, out_channels, stride, groups = shape
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=1, groups=groups, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(shape)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose output is added."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C', H / stride, W / stride]`."""
        identity = x if self.downsample is None else self.downsample(x)
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (identity + y).relu()


class ResNet(Network):
    """Stem, stages of blocks (each halves the size and doubles the channels), head.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        repeats: blocks of each stage.
        stem: how the image comes in.
        groups: groups of the inner 3x3 layers (ResNeXt's cardinality).
        group_width: channels of a group in the first stage, by 64 plain ones.
        zero_init_residual: start every block as the identity (arXiv:1706.02677).

    Raises:
        ValueError: groups or their width with basic blocks, which are not grouped.
    """

    head_name = "fc"

    def __init__(  # noqa: PLR0913 - the parts of which the papers' variants differ
        self,
        block: type[BasicBlock | Bottleneck],
        repeats: tuple[int, ...],
        *,
        classes: int,
        in_channels: int = 3,
        stem: Stem = IMAGENET_STEM,
        groups: int = 1,
        group_width: int = 64,
        zero_init_residual: bool = False,
    ):
        super().__init__()
        if block is BasicBlock and (groups, group_width) != (1, 64):
            raise ValueError(
                f"groups is {groups} and group_width {group_width}; only bottlenecks "
                "are grouped, basic blocks have 1 and 64"
            )
        kernel, stride, pool = stem
        self.conv1 = nn.Conv2d(
            in_channels, 64, kernel, stride, padding=kernel // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()
        self.stages = len(repeats)
        channels = 64
        for stage, count in enumerate(repeats):
            planes = 64 * 2**stage
            width = planes * group_width // 64 * groups
            out_channels = planes * block.expansion
            blocks = nn.Sequential()
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(
                    block(Shape(channels, width, out_channels, stride, groups))
                )
                channels = out_channels
            self.add_module(f"layer{stage + 1}", blocks)
        self.fc = nn.Linear(channels, classes)
        self.apply(kaiming)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck):
                    nn.init.zeros_(module.last_norm.weight)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, D]`, D = 512, 1024 or 2048."""
        x = self.bn1(self.conv1(x)).relu()  # [N, 64, H/2, W/2]; CIFAR: [N, 64, H, W]
        x = self.maxpool(x)  # [N, 64, H/4, W/4]; CIFAR: [N, 64, H, W]
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)  # halves all but the first
        return global_average(x)  # [N, D]


REPEATS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
# Parameters, multiply-accumulates and torchvision's top-1 of the ImageNet forms.
IMAGENET = {
    "resnet18": (11_689_512, 1_814_073_344, 69.76),
    "resnet34": (21_797_672, 3_663_761_408, 73.31),
    "resnet50": (25_557_032, 4_089_184_256, 76.13),
    "resnet101": (44_549_160, 7_801_405_440, 77.37),
    "resnet152": (60_192_808, 11_513_626_624, 78.31),
}
# The same of the CIFAR-10 forms; accuracies from kuangliu/pytorch-cifar.
CIFAR = {
    "resnet18": (11_173_962, 555_422_720, 93.02),
    "resnet34": (21_282_122, 1_159_402_496, None),
    "resnet50": (23_520_842, 1_297_829_888, 93.62),
    "resnet101": (42_512_970, 2_509_983_744, 93.75),
    "resnet152": (58_156_618, 3_722_137_600, None),
}

CARDS = tuple(
    NetworkCard(
        name=name + suffix,
        family="ResNet",
        year=2015,
        paper="He et al., arXiv:1512.03385",
        build=partial(ResNet, *REPEATS[name], stem=stem),
        dataset=dataset,
        image_size=size,
        smallest_image_size=1,
        classes=classes,
        parameters=parameters,
        macs=macs,
        accuracy=accuracy,
        source=source if accuracy else "",
    )
    for rows, stem, suffix, dataset, size, classes, source in (
        (IMAGENET, IMAGENET_STEM, "", "ImageNet", 224, 1000, "torchvision"),
        (CIFAR, CIFAR_STEM, "_cifar", "CIFAR-10", 32, 10, "kuangliu/pytorch-cifar"),
    )
    for name, (parameters, macs, accuracy) in rows.items()
)
