"""network of K classes → **detector**: is it one of these?"""

import torch
from torch import Tensor, nn


class SomeAgainstRest(nn.Module):
    """K logits → the log-odds of some of them: log p / (1 - p) under softmax, [N, 1].

    p is the sum of their probabilities. The same answer as the softmax gives to "is it
    one of these?", so a network that has learned all classes is a detector of any of
    them without further training.
    """

    def __init__(self, network: nn.Module, some: list[int], labels: int) -> None:
        super().__init__()
        self.network = network
        rest = [k for k in range(labels) if k not in some]
        self.register_buffer("some", torch.tensor(some))
        self.register_buffer("rest", torch.tensor(rest))

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images [N, C, H, W] → [N, 1]."""
        logits: Tensor = self.network(images)  # [N, K]
        some = logits.index_select(1, self.get_buffer("some"))
        rest = logits.index_select(1, self.get_buffer("rest"))
        yes, no = (each.logsumexp(dim=1, keepdim=True) for each in (some, rest))
        return yes - no
