"""network → **network of several views**: the image mirrored and shifted too.

Six views: as it is and mirrored, each also shifted by a pixel up-left and down-right.
The unshifted pair and the two shifted pairs count half each (Jordan, arXiv:2404.00498).
They are made in the graph, so that the graph that is served is the one measured.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# Count of views → their weights, in the order of `Viewed`.
WEIGHTS = {2: (0.5, 0.5), 6: (0.25, 0.25, 0.125, 0.125, 0.125, 0.125)}


class Viewed(nn.Module):
    """The weighted mean of the logits of 2 or 6 views.

    All go through the network in one batch: called several times, its graph would have
    each layer as often, and each quantized weight too.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network = network
        self.count = count
        self.register_buffer("weights", torch.tensor(WEIGHTS[count]).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images [N, C, H, W] → [N, K]."""
        logits: Tensor = self.network(torch.cat(self._seen(images)))  # [V·N, K]
        each = logits.reshape(self.count, -1, logits.shape[-1])  # [V, N, K]
        return (each * self.get_buffer("weights")).sum(0)

    def _seen(self, images: Tensor) -> list[Tensor]:
        seen = [images]
        if self.count == max(WEIGHTS):
            height, width = images.shape[2:]
            padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
            seen += [
                padded[:, :, offset : offset + height, offset : offset + width]
                for offset in (0, 2)
            ]
        return [view for one in seen for view in (one, one.flip(3))]
