"""gradient → **orthogonal update**: Muon, momentum with nearly equal singular values.

Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024. A
convolution's gradient has a few large directions and many small ones that matter too;
replacing G = U S V^T by U V^T lets all of them move alike.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Of the odd polynomial a x + b x^3 + c x^5 that Jordan chose for its steep slope at 0:
# small singular values grow 3.4-fold a step until they are among 0.7 to 1.2, not at 1.
QUINTIC = (3.4445, -4.7750, 2.0315)
# After 3 steps 0.01 has become 0.4; 5 are usual elsewhere and bring it to 0.7. Training
# the CIFAR networks needs no more: what was small is 40 times as large as it was.
STEPS = 3
FILTER_AXES = 4  # out, in, height, width


def orthogonalize(matrices: Tensor, *, steps: int = STEPS) -> Tensor:
    """Bring singular values towards 1 by a Newton-Schulz iteration, in bfloat16.

    Args:
        matrices: float [..., R, S]; the leading axes are a batch.
        steps: iterations, each three matrix products.

    Returns:
        The same shape and dtype.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the smaller Gram matrix
    x = x.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # largest singular value <= 1
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = x.mT if tall else x
    return orthogonal.to(matrices.dtype)


def orthogonalize_all(
    matrices: Sequence[Tensor], *, together: bool | None = None
) -> list[Tensor]:
    """`orthogonalize` each of float [g, R, S].

    Those whose smaller sides are equal go `together`, where None leaves it to the
    device: a GPU waits longer for its fifty small products to be launched than it
    computes. Zeros at the end of the longer side make them one shape; they add nothing
    to a Gram matrix and stay zeros.
    """
    if together is None:
        together = any(matrix.is_cuda for matrix in matrices)
    if not together:
        return [orthogonalize(matrix) for matrix in matrices]
    wide = [m.mT if m.shape[-2] > m.shape[-1] else m for m in matrices]
    of_side: dict[torch.Size, list[int]] = {}
    for place, matrix in enumerate(wide):
        of_side.setdefault(matrix.shape[:-1], []).append(place)
    for (groups, side), places in of_side.items():
        longest = max(wide[place].shape[-1] for place in places)
        padded = wide[places[0]].new_zeros(len(places), groups, side, longest)
        for row, place in zip(padded, places, strict=True):
            row[..., : wide[place].shape[-1]] = wide[place]
        for row, place in zip(orthogonalize(padded), places, strict=True):
            wide[place] = row[..., : wide[place].shape[-1]]
    return [
        found if found.shape == matrix.shape else found.mT
        for found, matrix in zip(wide, matrices, strict=True)
    ]


class Muon(Optimizer):
    """Muon for convolution filters [O, I, h, w] and matrices [O, I].

    Before each step a layer's filters are scaled, together, to norm sqrt(O): a batch
    norm follows them, which makes their scale meaningless, and a fixed scale keeps the
    step relative to it. It undoes weight decay. Where no norm follows, it takes from
    the layer what it should learn: give such filters to another optimizer. So does
    Jordan's airbench94_muon.py of 2024. His package `muon` leaves the norm alone, and
    multiplies updates of tall matrices by sqrt(rows / columns); not so here. A grouped
    convolution is a batch of small ones: `groups` says into how many blocks of filters
    it falls, and each block is made orthogonal for itself.

    Args:
        parameters: tensors, or dicts of `params` with their own `groups`.
        lr: step size; an orthogonal update has a spectral norm of 1.
        momentum: of the Nesterov average of gradients.
        weight_decay: shrinks weights by lr * weight_decay each step.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, object]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "groups": 1,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        due = [
            (group, parameters)
            for group in self.param_groups
            if (parameters := [p for p in group["params"] if p.grad is not None])
        ]
        ahead = [
            block
            for group, parameters in due
            for block in self._ahead(parameters, group)
        ]
        updates = iter(orthogonalize_all(ahead))
        for group, parameters in due:
            own = [next(updates).reshape(p.shape) for p in parameters]
            self._update(parameters, own, group)

    def _ahead(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The Nesterov averages of the gradients, in blocks [g, O / g, I h w]."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["average"] = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        averages = [self.state[p]["average"] for p in parameters]
        # as torch's own optimizers do it: a list of tensors is one kernel
        torch._foreach_mul_(averages, group["momentum"])
        torch._foreach_add_(averages, gradients)
        ahead = torch._foreach_add(gradients, averages, alpha=group["momentum"])
        return [a.reshape(group["groups"], -1, a[0].numel()) for a in ahead]

    def _update(
        self, parameters: list[Tensor], updates: list[Tensor], group: dict[str, Any]
    ) -> None:
        filters = [p for p in parameters if p.ndim == FILTER_AXES]
        if filters:
            scales = torch._foreach_norm(filters)
            torch._foreach_clamp_min_(scales, 1e-7)
            torch._foreach_reciprocal_(scales)
            torch._foreach_mul_(scales, [len(p) ** 0.5 for p in filters])
            for parameter, scale in zip(filters, scales, strict=True):
                parameter.mul_(scale)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])
