"""features → **linear probe**: a head on a frozen network, in seconds.

The baseline that every transfer must beat, and the start of its fine-tuning: a head
that already fits keeps the first steps from destroying the features (Kumar et al.,
arXiv:2202.10054). Axes: V views of N images, D features, K logits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import (  # type: ignore[import-untyped]
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
)
from torch import Tensor, nn

from training.data.scenes import Scenes
from training.objectives.objective import Objective, Scores

FOLDS = 5
ITERATIONS = 200

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]  # positions to fit to, held out


@dataclass(frozen=True)
class Probe:
    """Weight [K, D] and bias [K] for features as they come; no standardizing left."""

    weight: Tensor
    bias: Tensor
    decay: float
    cross_validation: Scores  # of the chosen decay, on train images held out in turn

    def logits(self, features: NDArray[np.float32]) -> Tensor:
        """float32 [N, D] → [N, K]."""
        return torch.from_numpy(features) @ self.weight.T + self.bias

    def into(self, head: nn.Linear) -> None:
        """Put the probe's numbers into a network's head."""
        with torch.no_grad():
            head.weight.copy_(self.weight)
            head.bias.copy_(self.bias)


def fit_probe(
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    objective: Objective,
    *,
    decays: tuple[float, ...],
    seed: int,
    scenes: Scenes | None = None,
) -> Probe:
    """Logistic regression on all views, its weight decay by cross-validation.

    Features are float32 [V, N, D]; the views of an image, and the images of a scene,
    are always on the same side of a fold, and what is held out is scored on its first
    view, as it will be served. The loss chooses: of few images the share of right
    answers is too coarse, and says nothing of how sure they are.
    """
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    folds = list(_folds(labels, scenes, seed))
    scores = {d: _cross_validated(x, y, objective, d, folds) for d in decays}
    best = min(decays, key=lambda d: scores[d]["loss"])
    weight, bias = _fit(x, y, objective, best)
    return Probe(weight, bias, best, scores[best])


def _folds(
    labels: NDArray[np.integer], scenes: Scenes | None, seed: int
) -> Iterator[Fold]:
    """Pairs of what is fitted to and what is held out.

    Scenes are dealt out so that each fold has its share of each label, as far as they
    can be: a label whose scenes are all held out cannot be learned at all.
    """
    count = len(labels)
    if scenes is None:
        whole = KFold(min(FOLDS, count), shuffle=True, random_state=seed)
        return whole.split(np.arange(count))
    parts = min(FOLDS, len(np.unique(scenes)))
    deal = StratifiedGroupKFold if labels.ndim == 1 else GroupKFold
    whole = deal(parts, shuffle=True, random_state=seed)
    return whole.split(np.arange(count), labels, groups=scenes)


def _cross_validated(
    x: Tensor, y: Tensor, objective: Objective, decay: float, folds: list[Fold]
) -> Scores:
    held_out = torch.zeros(len(y), objective.logits)  # [N, K]
    for fit, rest in folds:
        weight, bias = _fit(x[:, fit], y[fit], objective, decay)
        held_out[rest] = x[0, rest] @ weight.T + bias
    loss = objective.loss(held_out, objective.truth(y)).item()
    return objective.score(held_out, y) | {"loss": loss}


def _fit(
    x: Tensor, y: Tensor, objective: Objective, decay: float
) -> tuple[Tensor, Tensor]:
    """Minimize loss + decay / 2 · |W|² over standardized features by L-BFGS."""
    flat = x.reshape(-1, x.shape[-1])  # [V·N, D]
    mean, std = flat.mean(0), flat.std(0).clamp(min=1e-4)
    standard = (flat - mean) / std
    truth = objective.truth(y.repeat(len(x), *[1] * (y.ndim - 1)))
    weight = torch.zeros(objective.logits, x.shape[-1], requires_grad=True)
    bias = torch.zeros(objective.logits, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective.loss(standard @ weight.T + bias, truth)
        loss = loss + decay / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    scaled = (weight / std).detach()
    return scaled, (bias - scaled @ mean).detach()
