"""Pre-activation ResNet: within a stage, nothing stands on the shortcut.

He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016
(arXiv:1603.05027). Norm and ReLU move in front of each convolution, so features can
pass from the first block of a stage to its last without being touched. Between stages,
where size and channels change, the shortcut goes through norm, ReLU and a strided 1x1
convolution. The table that the field compares against (kuangliu/pytorch-cifar) leaves
out the paper's last norm and ReLU; so do we, and count the same 11,171,146 parameters.
"""

from functools import partial

from torch import Tensor, nn

from training.networks.card import NetworkCard
from training.networks.initialization import kaiming
from training.networks.network import Network
from training.networks.pooling import global_average


class PreActBlock(nn.Module):
    """Norm, ReLU, 3x3, twice; the shortcut starts behind the first ReLU if it must."""

    def __init__(self, channels: int, out_channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.downsample = None
        if stride != 1 or channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride, bias=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C', H / stride, W / stride]`."""
        y = self.bn1(x).relu()
        identity = x if self.downsample is None else self.downsample(y)
        y = self.conv1(y)
        y = self.conv2(self.bn2(y).relu())
        return identity + y


def build_stage(
    channels: int, out_channels: int, count: int, *, stride: int
) -> nn.Sequential:
    """`count` blocks in a row; only the first changes channels and size."""
    first = PreActBlock(channels, out_channels, stride)
    rest = [PreActBlock(out_channels, out_channels, 1) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


class PreActResNet(Network):
    """A 3x3 stem and four stages of blocks, for small images."""

    head_name = "fc"

    def __init__(self, repeats: tuple[int, ...], *, classes: int, in_channels: int = 3):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.layer1 = build_stage(64, 64, repeats[0], stride=1)
        self.layer2 = build_stage(64, 128, repeats[1], stride=2)
        self.layer3 = build_stage(128, 256, repeats[2], stride=2)
        self.layer4 = build_stage(256, 512, repeats[3], stride=2)
        self.fc = nn.Linear(512, classes)
        self.apply(kaiming)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 512]`."""
        x = self.conv1(x)  # [N, 64, H, W]
        x = self.layer1(x)  # [N, 64, H, W]
        x = self.layer2(x)  # [N, 128, H/2, W/2]
        x = self.layer3(x)  # [N, 256, H/4, W/4]
        x = self.layer4(x)  # [N, 512, H/8, W/8]
        return global_average(x)  # [N, 512]


CARDS = (
    NetworkCard(
        name="preact_resnet18_cifar",
        family="PreActResNet",
        year=2016,
        paper="He et al., arXiv:1603.05027",
        build=partial(PreActResNet, (2, 2, 2, 2)),
        dataset="CIFAR-10",
        image_size=32,
        smallest_image_size=1,
        classes=10,
        parameters=11_171_146,
        macs=555_422_720,
        accuracy=95.11,
        source="kuangliu/pytorch-cifar",
    ),
)
