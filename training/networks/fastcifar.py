"""The network of the CIFAR-10 speed records: six 3x3 layers that learn in seconds.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (arXiv:2404.00498), the
last in a line begun by Page's ResNet-9 of 2018. What makes it quick: a first layer that
is computed from the data and not learned (`whiten`), later layers that start by passing
their input on, batch norms without a gain, and logits scaled by 1/9.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.networks.card import NetworkCard
from training.networks.network import Network

LOGIT_SCALE = 1 / 9  # a softmax at temperature 9: less sure than the bare features
WHITENING_KERNEL = 2
WHITENING_EPS = 5e-4  # keeps noise in the weakest directions from being blown up


class BiasedNorm(nn.BatchNorm2d):
    """Batch norm that learns a bias and no gain; the next layer can scale by itself.

    Its running averages move quickly (momentum 0.4), for there are few steps.
    """

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-12, momentum=0.4)
        del self.weight  # the gain stays 1: not learned, not stored
        self.register_buffer("weight", torch.ones(channels), persistent=False)

    def reset_parameters(self) -> None:
        """As torch's; the gain is left alone."""
        self.reset_running_stats()
        nn.init.zeros_(self.bias)


class ConvGroup(nn.Module):
    """3x3, halve, norm, GELU, 3x3, norm, GELU."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.conv1 = passing_conv(channels, out_channels)
        self.norm1 = BiasedNorm(out_channels)
        self.conv2 = passing_conv(out_channels, out_channels)
        self.norm2 = BiasedNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C', H // 2, W // 2]`."""
        x = self.conv1(x)  # [N, C', H, W]
        if torch.onnx.is_in_onnx_export():
            # Without a gain the norm divides by a positive number, so it may as well
            # come before the maximum: there it is folded into the convolution.
            x = functional.max_pool2d(self.norm1(x), 2)
        else:
            x = self.norm1(functional.max_pool2d(x, 2))  # a quarter of the work
        x = functional.gelu(x)  # [N, C', H // 2, W // 2]
        return functional.gelu(self.norm2(self.conv2(x)))


def passing_conv(channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 whose first `channels` filters copy their channel (dirac initialization)."""
    conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:channels])
    return conv


class FastCifar(Network):
    """A frozen 2x2 layer, three groups of two 3x3 layers, global maximum, head.

    Call `whiten` with training images before training: until then the first layer's
    frozen weights are random.

    Args:
        widths: channels of the three groups.
    """

    head_name = "linear"

    def __init__(
        self,
        widths: tuple[int, int, int],
        *,
        classes: int,
        in_channels: int = 3,
    ):
        super().__init__()
        whitened = 2 * in_channels * WHITENING_KERNEL**2
        self.whitening = nn.Conv2d(in_channels, whitened, WHITENING_KERNEL)
        self.whitening.weight.requires_grad_(False)
        channels = (whitened, *widths)
        self.group1 = ConvGroup(channels[0], channels[1])
        self.group2 = ConvGroup(channels[1], channels[2])
        self.group3 = ConvGroup(channels[2], channels[3])
        self.linear = nn.Linear(channels[3], classes, bias=False)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first layer so that its outputs on `images` are uncorrelated.

        The filters are the eigenvectors of the covariance of all 2x2 patches, each
        divided by the deviation along it, once with each sign: what the GELU behind
        takes from one of the two, it leaves to the other. The bias, which is learned,
        starts at zero in the paper's code and here as torch has it, uniform in ±0.29
        (for three channels): so far the two differ in more than their sign.

        Images are normalized, `[N, C, H, W]`; a few thousand will do.
        """
        patches = functional.unfold(images.float(), WHITENING_KERNEL)  # [N, 4C, L]
        patches = patches.transpose(1, 2).flatten(0, 1)  # [N * L, 4C]
        covariance = patches.T @ patches / len(patches)  # [4C, 4C]
        variances, vectors = torch.linalg.eigh(covariance)
        filters = (vectors / (variances + WHITENING_EPS).sqrt()).T  # a row a filter
        weight = self.whitening.weight  # [8C, C, 2, 2]
        weight.copy_(torch.cat([filters, -filters]).view_as(weight))

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, D]`; shapes for 32x32."""
        x = functional.gelu(self.whitening(x))  # [N, 24, 31, 31]
        x = self.group1(x)  # [N, widths[0], 15, 15]
        x = self.group2(x)  # [N, widths[1], 7, 7]
        x = self.group3(x)  # [N, widths[2], 3, 3]
        x = functional.max_pool2d(x, x.shape[2:]).flatten(1)  # [N, D]
        return x * LOGIT_SCALE  # the head has no bias: this scales its logits


CARDS = tuple(
    NetworkCard(
        name=name,
        family="FastCifar",
        year=2024,
        paper="Jordan, arXiv:2404.00498",
        build=partial(FastCifar, widths),
        dataset="CIFAR-10",
        image_size=32,
        smallest_image_size=9,
        classes=10,
        parameters=parameters,
        macs=macs,
        accuracy=accuracy,
        source="paper, six views" if accuracy else "",
    )
    for name, widths, parameters, macs, accuracy in (
        # ours: only to select images for the others, see `training/loop/selection.py`
        ("fastcifar_proxy", (16, 32, 32), 38_808, 6_139_616, None),
        ("fastcifar_94", (64, 256, 256), 1_971_640, 118_147_360, 94.01),
        ("fastcifar_95", (128, 384, 384), 4_604_728, 301_560_864, 95.01),
    )
)
