"""LeNet-5, the network that read checks.

LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11), 1998. Two convolutions, each followed by a
halving of the size, then three fully connected layers: the plan that every network here
still follows. Ours departs from 1998 where the field has since: C3 sees all six maps,
not a hand-made selection, ReLU replaces the scaled tanh, maximum replaces the trainable
mean, and a linear layer with softmax replaces the radial basis units.
"""

import math

from torch import Tensor, nn
from torch.nn import functional

from training.networks.card import NetworkCard
from training.networks.network import Network

# Digits of 28x28 stand in the middle of 32x32: strokes at the edge meet whole filters.
NATIVE_SIZE = 32


def pooled_side(side: int) -> int:
    """Pixels of a side that S4 leaves: 5 of 32."""
    return ((side - 4) // 2 - 4) // 2


class LeNet5(Network):
    """C1 6@5x5, S2, C3 16@5x5, S4, C5 120, F6 84, output."""

    head_name = "fc3"

    def __init__(
        self,
        *,
        classes: int,
        in_channels: int = 1,
        image_size: int | tuple[int, int] = NATIVE_SIZE,
    ):
        super().__init__()
        height, width = (
            (image_size, image_size) if isinstance(image_size, int) else image_size
        )
        padding = 2 if min(height, width) < NATIVE_SIZE else 0
        sides = (pooled_side(side + 2 * padding) for side in (height, width))
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=padding)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * math.prod(sides), 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → features `[N, 84]`; shapes for 32x32."""
        x = functional.max_pool2d(self.conv1(x).relu(), 2)  # [N, 6, 14, 14]
        x = functional.max_pool2d(self.conv2(x).relu(), 2)  # [N, 16, 5, 5]
        x = self.fc1(x.flatten(1)).relu()  # [N, 120]
        return self.fc2(x).relu()  # [N, 84]


CARDS = (
    NetworkCard(
        name="lenet5",
        family="LeNet",
        year=1998,
        paper="LeCun et al., Proc. IEEE 86(11)",
        build=LeNet5,
        dataset="MNIST",
        image_size=32,
        smallest_image_size=12,
        classes=10,
        in_channels=1,
        parameters=61_706,
        macs=416_520,
        accuracy=99.05,
        source="paper",
    ),
)
