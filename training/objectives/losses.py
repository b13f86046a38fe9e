"""logits + truth → **loss**: one number, the mean over a batch of N images.

Truth is class indices, int64 [N], or shares that sum to 1, float [N, K] (mixed images);
for multi-label and binary it is 0 to 1, float [N, K].
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(*, label_smoothing: float = 0.0) -> Loss:
    """Softmax cross-entropy; smoothing moves that share of the truth to all labels.

    Szegedy et al., arXiv:1512.00567.
    """

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits.float(), truth, label_smoothing=label_smoothing
        )

    return loss


def binary_cross_entropy(
    *, label_smoothing: float = 0.0, positive_weight: Tensor | None = None
) -> Loss:
    """Sigmoid cross-entropy for each label by itself.

    `positive_weight` [K] multiplies the positives of rare labels.
    """

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        wanted = smoothed(truth.float().view_as(logits), label_smoothing)
        weight = None if positive_weight is None else positive_weight.to(logits.device)
        return functional.binary_cross_entropy_with_logits(
            logits.float(), wanted, pos_weight=weight
        )

    return loss


def asymmetric(
    *,
    gamma_positive: float,
    gamma_negative: float,
    clip: float,
    label_smoothing: float = 0.0,
) -> Loss:
    """ASL: the many easy negatives of a multi-label data set count for next to nothing.

    With p = sigmoid(logit) and q = max(p - clip, 0), for each label
        - truth · (1 - p)^gamma_positive · log p
        - (1 - truth) · q^gamma_negative · log(1 - q)
    Ridnik et al., arXiv:2009.14119; with gammas and clip 0 it is the cross-entropy.
    """

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        wanted = smoothed(truth.float().view_as(logits), label_smoothing)
        z = logits.float()
        negative = (functional.sigmoid(-z) + clip).clamp(max=1)  # 1 - q, [N, K]
        # without a clip 1 - q underflows where the logit is large; its log does not
        log_negative = negative.log() if clip else functional.logsigmoid(-z)
        found = functional.logsigmoid(z) * functional.sigmoid(-z) ** gamma_positive
        passed = log_negative * (1 - negative) ** gamma_negative
        return -(wanted * found + (1 - wanted) * passed).mean()

    return loss


def adjusted(loss: Loss, shift: Tensor) -> Loss:
    """The same loss of logits + shift [K]: what is learned is the logit without it.

    With the log of the labels' frequencies as the shift this is logit adjustment (Menon
    et al., arXiv:2007.07314): answers as if all labels were equally frequent.
    """

    def shifted(logits: Tensor, truth: Tensor) -> Tensor:
        return loss(logits.float() + shift.to(logits.device), truth)

    return shifted


def smoothed(truth: Tensor, smoothing: float) -> Tensor:
    """Yes and no, 1 and 0, a part of the way to one half."""
    return truth * (1 - smoothing) + smoothing / 2
