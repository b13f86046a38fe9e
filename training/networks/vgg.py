"""VGG: only 3x3 convolutions, and many of them.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015 (arXiv:1409.1556). Two 3x3 layers see as far as one 5x5, cost
less, and have one more nonlinearity: the paper's table 1 tries that from 11 layers (A)
to 19 (E). A-LRN asks whether AlexNet's normalization still helps (it does not), C
whether 1x1 layers are enough of a nonlinearity (3x3 is better). Batch norm came later
(Ioffe and Szegedy, arXiv:1502.03167). State-dict names are torchvision's.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.networks.card import NetworkCard
from training.networks.initialization import kaiming, small_linear
from training.networks.network import Network
from training.networks.pooling import AdaptiveAveragePool, global_average

# Table 1 of the paper, columns A to E. A number is a 3x3 layer of so many channels,
# "1x1" one that keeps them, "M" a 2x2 maximum, "LRN" a normalization.
CONFIGS: dict[str, tuple[int | str, ...]] = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg11_lrn": (
        *(64, "LRN", "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    ),
    "vgg13": (
        *(64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    ),
    "vgg16_1": (
        *(64, 64, "M", 128, 128, "M", 256, 256, "1x1", "M"),
        *(512, 512, "1x1", "M", 512, 512, "1x1", "M"),
    ),
    "vgg16_3": (
        *(64, 64, "M", 128, 128, "M", 256, 256, 256, "M"),
        *(512, 512, 512, "M", 512, 512, 512, "M"),
    ),
    "vgg19": (
        *(64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M"),
        *(512, 512, 512, 512, "M", 512, 512, 512, 512, "M"),
    ),
}


class LocalResponseNorm(nn.Module):
    """x / (k + alpha / n * sum of squares over n neighbouring channels) ^ beta.

    Krizhevsky et al., NIPS 2012, section 3.3, with its n = 5, k = 2, alpha = 1e-4 and
    beta = 0.75; alpha is divided by n, as torch, Caffe and ONNX do it. Exported, it is
    the one ONNX operator `LRN`, where torch's own becomes dozens of nodes.
    """

    size, alpha, beta, k = 5, 1e-4, 0.75, 2.0

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → the same shape."""
        if torch.onnx.is_in_onnx_export():
            return torch.onnx.ops.symbolic(
                "LRN",
                (x,),
                {
                    "size": self.size,
                    "alpha": self.alpha,
                    "beta": self.beta,
                    "bias": self.k,
                },
                dtype=x.dtype,
                shape=x.shape,
                version=20,
            )
        return functional.local_response_norm(
            x, self.size, self.alpha, self.beta, self.k
        )


def build_features(
    config: tuple[int | str, ...], *, in_channels: int, batch_norm: bool
) -> nn.Sequential:
    """The convolutional part, layer after layer as `config` lists them."""
    layers: list[nn.Module] = []
    channels = in_channels
    for entry in config:
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
        elif entry == "LRN":
            layers.append(LocalResponseNorm())
        else:
            kernel = 1 if entry == "1x1" else 3
            wanted = channels if entry == "1x1" else int(entry)
            # The bias is useless before a batch norm, but published weights have it.
            layers.append(nn.Conv2d(channels, wanted, kernel, padding=kernel // 2))
            layers.extend([nn.BatchNorm2d(wanted)] if batch_norm else [])
            layers.append(nn.ReLU(inplace=True))
            channels = wanted
    return nn.Sequential(*layers)


class VGG(Network):
    """For ImageNet: convolutions to 7x7, then three fully connected layers."""

    head_name = "classifier.6"

    def __init__(
        self,
        config: tuple[int | str, ...],
        *,
        classes: int,
        in_channels: int = 3,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.features = build_features(
            config, in_channels=in_channels, batch_norm=batch_norm
        )
        self.avgpool = AdaptiveAveragePool(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, classes),
        )
        self.apply(kaiming)
        self.apply(small_linear)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 4096]`."""
        x = self.features(x)  # [N, 512, H/32, W/32]
        x = self.avgpool(x).flatten(1)  # [N, 25088]
        return self.classifier[:-1](x)  # [N, 4096]


class CifarVGG(Network):
    """For 32x32: the same convolutions end at 1x1, so one linear layer is enough."""

    head_name = "classifier"

    def __init__(
        self,
        config: tuple[int | str, ...],
        *,
        classes: int,
        in_channels: int = 3,
        batch_norm: bool = True,
    ):
        super().__init__()
        self.features = build_features(
            config, in_channels=in_channels, batch_norm=batch_norm
        )
        self.classifier = nn.Linear(512, classes)
        self.apply(kaiming)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 512]`."""
        return global_average(self.features(x))  # [N, 512, H/32, W/32] averaged


PAPER = "Simonyan and Zisserman, arXiv:1409.1556"
# Parameters, multiply-accumulates and top-1 by (source) of the ImageNet forms.
IMAGENET = {
    "vgg11": (132_863_336, 7_609_090_048, 69.02, "torchvision"),
    "vgg11_bn": (132_868_840, 7_609_090_048, 70.37, "torchvision"),
    "vgg11_lrn": (132_863_336, 7_609_090_048, 70.3, "paper, table 3"),
    "vgg13": (133_047_848, 11_308_466_176, 69.93, "torchvision"),
    "vgg13_bn": (133_053_736, 11_308_466_176, 71.59, "torchvision"),
    "vgg16_1": (133_638_952, 11_770_888_192, 72.7, "paper, table 3"),
    "vgg16_1_bn": (133_647_400, 11_770_888_192, None, ""),
    "vgg16_3": (138_357_544, 15_470_264_320, 71.59, "torchvision"),
    "vgg16_3_bn": (138_365_992, 15_470_264_320, 73.36, "torchvision"),
    "vgg19": (143_667_240, 19_632_062_464, 72.38, "torchvision"),
    "vgg19_bn": (143_678_248, 19_632_062_464, 74.22, "torchvision"),
}
# The same of the CIFAR-10 forms.
CIFAR = {
    "vgg11": (9_225_610, 152_769_536, None, ""),
    "vgg11_bn": (9_231_114, 152_769_536, None, ""),
    "vgg11_lrn": (9_225_610, 152_769_536, None, ""),
    "vgg13": (9_410_122, 228_267_008, None, ""),
    "vgg13_bn": (9_416_010, 228_267_008, None, ""),
    "vgg16_1": (10_001_226, 237_704_192, None, ""),
    "vgg16_1_bn": (10_009_674, 237_704_192, None, ""),
    "vgg16_3": (14_719_818, 313_201_664, None, ""),
    "vgg16_3_bn": (14_728_266, 313_201_664, 92.64, "kuangliu/pytorch-cifar"),
    "vgg19": (20_029_514, 398_136_320, None, ""),
    "vgg19_bn": (20_040_522, 398_136_320, 93.34, "bearpaw/pytorch-classification"),
}

CARDS = tuple(
    NetworkCard(
        name=name + suffix,
        family="VGG",
        year=2014,
        paper=PAPER,
        build=partial(
            network,
            CONFIGS[name.removesuffix("_bn")],
            batch_norm=name.endswith("_bn"),
        ),
        dataset=dataset,
        image_size=size,
        smallest_image_size=32,
        classes=classes,
        parameters=parameters,
        macs=macs,
        accuracy=accuracy,
        source=source,
    )
    for rows, network, suffix, dataset, size, classes in (
        (IMAGENET, VGG, "", "ImageNet", 224, 1000),
        (CIFAR, CifarVGG, "_cifar", "CIFAR-10", 32, 10),
    )
    for name, (parameters, macs, accuracy, source) in rows.items()
)
