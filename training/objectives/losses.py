"""logits + truth → **loss**: one number, the mean over a batch of N images.

Truth is class indices, int64 [N], or shares that sum to 1, float [N, K] (mixed images);
for multi-label and binary it is 0 to 1, float [N, K].
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(
    *, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Loss:
    """Softmax cross-entropy; smoothing moves that share of the truth to all labels.

    Szegedy et al., arXiv:1512.00567.
    """

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits.float(), truth, weight=weight, label_smoothing=label_smoothing
        )

    return loss


def binary_cross_entropy(
    *, label_smoothing: float = 0.0, pos_weight: Tensor | None = None
) -> Loss:
    """Sigmoid cross-entropy for each label by itself.

    `pos_weight` [K] multiplies the positives of rare labels.
    """

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        wanted = truth.float().view_as(logits)
        wanted = wanted * (1 - label_smoothing) + label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(
            logits.float(), wanted, pos_weight=pos_weight
        )

    return loss
