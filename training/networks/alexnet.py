"""AlexNet, which made the field look up in 2012.

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional
Neural Networks", NIPS 2012; in the slimmer form of Krizhevsky, "One weird trick for
parallelizing convolutional neural networks" (arXiv:1404.5997), which is torchvision's
and whose state-dict names we keep. As in torchvision it has no response normalization,
which VGG's authors found to be of no use (`vgg11_lrn`). Nine tenths of its parameters
sit in two fully connected layers; networks after it learned to do without them.
"""

from torch import Tensor, nn

from training.networks.card import NetworkCard
from training.networks.network import Network
from training.networks.pooling import AdaptiveAveragePool


class AlexNet(Network):
    """Five convolutions, three fully connected layers, dropout between them."""

    head_name = "classifier.6"

    def __init__(self, *, classes: int, in_channels: int = 3, dropout: float = 0.5):
        super().__init__()
        self.features = nn.Sequential(  # shapes for 224x224
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),  # [N, 64, 55, 55]
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # [N, 64, 27, 27]
            nn.Conv2d(64, 192, 5, padding=2),  # [N, 192, 27, 27]
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # [N, 192, 13, 13]
            nn.Conv2d(192, 384, 3, padding=1),  # [N, 384, 13, 13]
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),  # [N, 256, 13, 13]
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),  # [N, 256, 13, 13]
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # [N, 256, 6, 6]
        )
        self.avgpool = AdaptiveAveragePool(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, classes),
        )

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 4096]`."""
        x = self.avgpool(self.features(x)).flatten(1)  # [N, 9216]
        return self.classifier[:-1](x)  # [N, 4096]


class CifarAlexNet(Network):
    """The same five convolutions for 32x32, and one linear layer behind them.

    As in bearpaw/pytorch-classification: at this size the fully connected layers would
    only see one pixel.
    """

    head_name = "classifier"

    def __init__(self, *, classes: int, in_channels: int = 3):
        super().__init__()
        self.features = nn.Sequential(  # shapes for 32x32
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=5),  # [N, 64, 8, 8]
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),  # [N, 64, 4, 4]
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),  # [N, 192, 2, 2]
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),  # [N, 256, 1, 1]
        )
        self.avgpool = AdaptiveAveragePool(1)
        self.classifier = nn.Linear(256, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 256]`."""
        return self.avgpool(self.features(x)).flatten(1)


CARDS = (
    NetworkCard(
        name="alexnet",
        family="AlexNet",
        year=2012,
        paper="arXiv:1404.5997 (2014), after Krizhevsky et al., NIPS",
        build=AlexNet,
        dataset="ImageNet",
        image_size=224,
        smallest_image_size=63,
        classes=1000,
        parameters=61_100_840,
        macs=714_188_480,
        accuracy=56.52,
        source="torchvision",
    ),
    NetworkCard(
        name="alexnet_cifar",
        family="AlexNet",
        year=2012,
        paper="arXiv:1404.5997 (2014), after Krizhevsky et al., NIPS",
        build=CifarAlexNet,
        dataset="CIFAR-10",
        image_size=32,
        smallest_image_size=29,
        classes=10,
        parameters=2_472_266,
        macs=14_957_056,
        accuracy=77.22,
        source="bearpaw/pytorch-classification",
    ),
)
