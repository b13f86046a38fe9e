"""images → embedding → **logits**: what every network of this package can do.

A network is a torch module with one linear layer at its end, the *head*. Everything
before the head is the *embedding*: one vector an image, which is what transfer
learning reuses. Keeping that seam in one place lets a probe, a fine-tuning run and the
class-activation maps treat a LeNet and a DenseNet alike.
"""

from typing import ClassVar, cast

from torch import Tensor, nn


class Network(nn.Module):
    """A classifier whose last layer is one `nn.Linear`, found by name.

    Takes normalized float images `[N, C, H, W]` and returns logits `[N, K]`. Subclasses
    set `head_name` (the head's name in the state dict) and write `embed`.
    """

    head_name: ClassVar[str]

    def embed(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → what the head sees, `[N, D]` (D = features)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → logits `[N, K]`."""
        logits: Tensor = self.head(self.embed(x))
        return logits

    @property
    def head(self) -> nn.Linear:
        """The last layer, which turns D features into K logits."""
        return cast(nn.Linear, self.get_submodule(self.head_name))

    def replace_head(self, classes: int) -> nn.Linear:
        """Put a fresh head for `classes` in the old one's place, and return it.

        Device and dtype stay; the embedding is not touched.
        """
        old = self.head
        new = nn.Linear(
            old.in_features,
            classes,
            bias=old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        parent, _, name = self.head_name.rpartition(".")
        setattr(self.get_submodule(parent), name, new)
        return new
