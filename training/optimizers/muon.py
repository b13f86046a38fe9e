"""gradient → **orthogonal update**: Muon, momentum with its singular values made equal.

Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024. A
convolution's gradient has a few large directions and many small ones that matter too;
replacing G = U S V^T by U V^T lets all of them move alike.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Of the odd polynomial a x + b x^3 + c x^5 that Jordan chose for its steep slope at 0:
# small singular values grow 3.4-fold a step; all end up in about 0.7 to 1.2, not at 1.
QUINTIC = (3.4445, -4.7750, 2.0315)
STEPS = 3  # enough for convolutions of a few hundred channels; 5 is usual elsewhere
FILTER_AXES = 4  # out, in, height, width


def orthogonalize(matrices: Tensor, *, steps: int = STEPS) -> Tensor:
    """Bring all singular values near 1 by a Newton-Schulz iteration, in bfloat16.

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

    Those of one shape go `together` where None leaves it to the device: a GPU waits
    longer for its fifty small products to be launched than it computes.
    """
    if together is None:
        together = any(matrix.is_cuda for matrix in matrices)
    if not together:
        return [orthogonalize(matrix) for matrix in matrices]
    of_shape: dict[torch.Size, list[int]] = {}
    for place, matrix in enumerate(matrices):
        of_shape.setdefault(matrix.shape, []).append(place)
    found = list(matrices)
    for places in of_shape.values():
        stacked = torch.stack([matrices[place] for place in places])  # [n, g, R, S]
        for place, orthogonal in zip(places, orthogonalize(stacked), strict=True):
            found[place] = orthogonal
    return found


class Muon(Optimizer):
    """Muon for convolution filters [O, I, h, w] and matrices [O, I].

    Before each step a filter is scaled to norm sqrt(O): a batch norm follows it, which
    makes its scale meaningless, and a fixed scale keeps the step relative to it. A
    grouped convolution is a batch of small ones: `groups` says into how many blocks of
    filters it falls, and each block is made orthogonal for itself.

    Args:
        parameters: tensors, or dicts of `params` with their own `groups`.
        lr: step size; an orthogonal update has a spectral norm of 1.
        momentum: of the Nesterov average of gradients.
        weight_decay: shrinks weights by lr * weight_decay each step.
        renormalize: whether to scale filters to sqrt(O) first.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, object]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        renormalize: bool = True,
    ) -> None:
        if lr < 0 or not 0 < momentum < 1:
            raise ValueError(f"lr {lr} must be >= 0 and momentum {momentum} in (0, 1)")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "renormalize": renormalize,
            "groups": 1,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        due = [
            (parameter, self._ahead(parameter, parameter.grad, group), group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        updates = orthogonalize_all([ahead for _, ahead, _ in due])
        for (parameter, _, group), update in zip(due, updates, strict=True):
            self._update(parameter, update.view_as(parameter), group)

    def _ahead(
        self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> Tensor:
        """The Nesterov average of the gradients, in blocks [g, O / g, I h w]."""
        state = self.state[parameter]
        if not state:
            state["average"] = torch.zeros_like(parameter)
        average = state["average"]
        average.mul_(group["momentum"]).add_(gradient)
        ahead = gradient.add(average, alpha=group["momentum"])
        return ahead.reshape(group["groups"], -1, ahead[0].numel())

    def _update(self, parameter: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        if group["renormalize"] and parameter.ndim == FILTER_AXES:
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm().clamp_min(1e-7))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"])
