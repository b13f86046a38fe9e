"""features → **linear probe**: a head on a frozen network, in seconds.

A logistic regression; or, for a few images each of many kinds, a linear discriminant
(Fisher, 1936) with a shrunk covariance (Friedman, 1989), which takes the directions in
which photos of one kind differ for noise, such as their light, and looks past them.

The baseline that every transfer must beat, and the start of its fine-tuning: a head
that already fits keeps the first steps from destroying the features (Kumar et al.,
arXiv:2202.10054). Axes: V views of N images, D features, K logits.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import (  # type: ignore[import-untyped]
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
)
from torch import Tensor, nn

from training.configs.task_sections import ProbeKind
from training.data.scenes import Scenes
from training.errors import DataError
from training.objectives.objective import Objective, Scores
from training.rules.temperature import fit_temperature

FOLDS = 5
ITERATIONS = 200

# Far above what a discriminant needs: of few images of many features it makes logits in
# the thousands, and a bound within reach would choose its shrinkage.
HOTTEST = 1e4

Linear = tuple[Tensor, Tensor]  # weight [K, D], bias [K]
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]  # positions to fit to, held out


@dataclass(frozen=True)
class Probe:
    """Weight [K, D] and bias [K] for features as they come; no standardizing left."""

    weight: Tensor
    bias: Tensor
    strength: float  # of its regularization
    cross_validation: Scores  # of this strength, on train images held out in turn

    def logits(self, features: NDArray[np.float32]) -> Tensor:
        """float32 [N, D] → [N, K]."""
        return torch.from_numpy(features) @ self.weight.T + self.bias

    def into(self, head: nn.Linear) -> None:
        """Put the probe's numbers into a network's head."""
        with torch.no_grad():
            head.weight.copy_(self.weight)
            head.bias.copy_(self.bias)


def fit_probe(  # noqa: PLR0913 - each is a choice of its own
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    objective: Objective,
    *,
    kind: ProbeKind = "logistic",
    strengths: tuple[float, ...],
    seed: int,
    scenes: Scenes | None = None,
) -> Probe:
    """A probe on all views, its regularization chosen by cross-validation.

    Features are float32 [V, N, D]; the views of an image, and the images of a scene,
    are always on the same side of a fold, and what is held out is scored on its first
    view, as it will be served. The loss chooses: of few images the share of right
    answers is too coarse, and says nothing of how sure they are. A discriminant needs
    one label an image, which a config is checked for.

    Raises:
        DataError: too few images to hold some out.
    """
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    folds = _folds(labels, scenes, seed)
    tried = [
        _try_strength(x, y, objective, kind, strength, folds) for strength in strengths
    ]
    best = min(tried, key=lambda one: one.scores["loss"])
    weight, bias = FITS[kind](x, y, objective, best.strength)
    scale = best.temperature
    return Probe(weight / scale, bias / scale, best.strength, best.scores)


def _folds(labels: NDArray[np.integer], scenes: Scenes | None, seed: int) -> list[Fold]:
    """Pairs of what is fitted to and what is held out.

    Images, or scenes, are dealt out so that each fold has its share of each label, as
    far as they can be: a label that is held out whole cannot be learned at all. A label
    with fewer images than folds is missing from some of the held-out parts.

    Raises:
        DataError: there are not even two folds' worth of images.
    """
    deal, most = KFold, len(labels)
    if scenes is not None:
        deal, most = GroupKFold, len(np.unique(scenes))
    if labels.ndim == 1:  # at least one label must have an image for each fold
        deal = StratifiedKFold if scenes is None else StratifiedGroupKFold
        most = min(most, np.bincount(labels).max())
    if most < 2:  # noqa: PLR2004 - one to fit to, one to hold out
        raise DataError(
            "the probe is chosen by images of train that are held out in turn, and "
            f"{len(labels)} images cannot be parted: give two of a label, of different "
            "scenes where data.series or data.alike tells them"
        )
    whole = deal(min(FOLDS, most), shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # sklearn warns of labels with fewer images than folds, which are meant
        return list(whole.split(np.arange(len(labels)), labels, groups=scenes))


@dataclass(frozen=True)
class _Tried:
    strength: float
    temperature: float  # what the logits are to be divided by
    scores: Scores


def _try_strength(
    x: Tensor,
    y: Tensor,
    objective: Objective,
    kind: ProbeKind,
    strength: float,
    folds: list[Fold],
) -> _Tried:
    held_out = torch.zeros(len(y), objective.logits)  # [N, K]
    for some, rest in folds:
        weight, bias = FITS[kind](x[:, some], y[some], objective, strength)
        held_out[rest] = x[0, rest] @ weight.T + bias
    temperature = 1.0
    if kind == "discriminant":  # sure of itself beyond measure
        truth = _believed(held_out, y)
        temperature = fit_temperature(held_out.numpy(), truth, hottest=HOTTEST)
    held_out /= temperature
    return _Tried(strength, temperature, objective.watched(held_out, y))


def _believed(held_out: Tensor, y: Tensor) -> NDArray[Any]:
    """What the logits [N, K] are to say: the labels [N], where some are mistaken.

    Where none is, no temperature would be too cold. There they are to say how likely
    each label is, [N, K], if one answer of N + 2 were wrong: Laplace's rule of
    succession, as Platt (1999) has it.
    """
    count, labels = held_out.shape
    if (held_out.argmax(1) != y).any():
        return y.numpy()
    doubt = 1 / (count + 2)
    believed = np.full((count, labels), doubt / (labels - 1))
    believed[np.arange(count), y.numpy()] = 1 - doubt
    return believed


def fit_logistic(x: Tensor, y: Tensor, objective: Objective, decay: float) -> Linear:
    """Minimize loss + decay / 2 · |W|² over standardized features by L-BFGS."""
    flat, mean, std = _standardized(x)
    truth = objective.truth(y.repeat(len(x), *[1] * (y.ndim - 1)))
    weight = torch.zeros(objective.logits, x.shape[-1], requires_grad=True)
    bias = torch.zeros(objective.logits, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective.loss(flat @ weight.T + bias, truth)
        loss = loss + decay / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    scaled = (weight / std).detach()
    return scaled, (bias - scaled @ mean).detach()


def fit_discriminant(
    x: Tensor, y: Tensor, objective: Objective, shrinkage: float
) -> Linear:
    """Normal distributions with one covariance S, by Bayes' rule; y is int [N].

    The logit of label k is mₖᵀS⁻¹x - mₖᵀS⁻¹mₖ / 2 + log p(k), over standardized
    features. S is drawn by `shrinkage` towards as much of the identity as has its
    trace: a few thousand views do not know two thousand variances and how they go
    together. A label without images has its mean where all images have theirs.
    """
    flat, mean, std = _standardized(x)
    labels = y.long().repeat(len(x))  # [V·N]
    counts = torch.bincount(labels, minlength=objective.logits).float()  # [K]
    sums = torch.zeros(objective.logits, flat.shape[1]).index_add(0, labels, flat)
    means = sums / counts.clamp(min=1).unsqueeze(1)  # [K, D]
    within = flat - means[labels]
    covariance = within.T @ within / len(flat)  # [D, D]
    identity = torch.eye(len(covariance)) * covariance.diagonal().mean()
    covariance = covariance.lerp(identity, shrinkage)
    weight = torch.linalg.solve(covariance, means.T).T  # [K, D]
    prior = ((counts + 1) / (counts + 1).sum()).log()
    bias = prior - (weight * means).sum(1) / 2
    scaled = weight / std
    return scaled, bias - scaled @ mean


def _standardized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[V, N, D] → [V·N, D] of mean 0 and deviation 1; the mean and deviation, [D]."""
    flat = x.reshape(-1, x.shape[-1])
    mean, std = flat.mean(0), flat.std(0).clamp(min=1e-4)
    return (flat - mean) / std, mean, std


FITS: dict[ProbeKind, Callable[[Tensor, Tensor, Objective, float], Linear]] = {
    "logistic": fit_logistic,
    "discriminant": fit_discriminant,
}
