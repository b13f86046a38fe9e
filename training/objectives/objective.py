"""task → **objective**: what a batch's labels mean, its loss and its score.

Labels come as class indices, int64 [N], or 0/1, uint8 [N, K]; the loss wants the truth
in its own form, and mixing two images needs shares instead of indices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from classifier.manifest import Task
from training.configs.train_sections import LossConfig
from training.objectives.imbalance import positive_weight, prior_logits
from training.objectives.losses import (
    Loss,
    adjusted,
    asymmetric,
    binary_cross_entropy,
    cross_entropy,
)

Scores = dict[str, float]  # the first one decides, and more is better
Score = Callable[[Tensor, Tensor], Scores]


def better(one: Scores, other: Scores) -> bool:
    """By the first score; among equals by the lower loss."""
    name = next(iter(one))
    if one[name] != other[name]:
        return one[name] > other[name]
    return one.get("loss", 0.0) < other.get("loss", 0.0)


@dataclass(frozen=True)
class Objective:
    """How one task is learned and watched."""

    task: Task
    labels: int  # how many there are
    loss: Loss
    score: Score
    first_bias: Tensor | None = None  # of a fresh head, [K]; None: as it comes

    @property
    def logits(self) -> int:
        """K of the network: 1 for binary, else one a label."""
        return self.task.logits(self.labels)

    def truth(self, labels: Tensor, *, mixing: bool = False) -> Tensor:
        """Labels in the form of the loss: indices, or float [N, K]."""
        if self.task is Task.MULTILABEL:
            return labels.float()
        if self.task is Task.BINARY:
            return labels.float().view(-1, 1)
        return functional.one_hot(labels, self.labels).float() if mixing else labels

    def losses(self, logits: Tensor, truth: Tensor) -> Tensor:
        """The loss of each image by itself, float [N]; truth as of `truth`."""
        return torch.vmap(self.loss)(logits.unsqueeze(1), truth.unsqueeze(1))

    def watched(self, logits: Tensor, labels: Tensor) -> Scores:
        """The scores of logits [N, K], and behind them the mean loss."""
        loss = self.loss(logits, self.truth(labels)).item()
        return self.score(logits, labels) | {"loss": loss}


def build_objective(
    task: Task,
    *,
    labels: int,
    label_smoothing: float = 0.0,
    config: LossConfig | None = None,
    frequency: Tensor | None = None,
) -> Objective:
    """The objective of a task.

    `frequency` [K] is how often each label occurs in train; what `config` makes of it
    is left out where it is not known.
    """
    wanted = config or LossConfig()
    sigmoid = task.activation == "sigmoid"
    loss = build_loss(wanted, frequency, sigmoid=sigmoid, smoothing=label_smoothing)
    bias = None
    if frequency is not None:
        prior = prior_logits(frequency, task)
        if wanted.logit_adjustment:
            loss = adjusted(loss, wanted.logit_adjustment * prior)
        elif wanted.prior_bias and sigmoid:
            weight = positive_weight(frequency, wanted)
            bias = prior if weight is None else prior + weight.log()
    return Objective(task, labels, loss, score_of(task), bias)


def build_loss(
    config: LossConfig, frequency: Tensor | None, *, sigmoid: bool, smoothing: float
) -> Loss:
    """The loss that a config names, before any adjustment."""
    if config.kind == "asymmetric":
        return asymmetric(
            gamma_positive=config.gamma_positive,
            gamma_negative=config.gamma_negative,
            clip=config.clip,
            label_smoothing=smoothing,
        )
    if not sigmoid:
        return cross_entropy(label_smoothing=smoothing)
    weight = None if frequency is None else positive_weight(frequency, config)
    return binary_cross_entropy(label_smoothing=smoothing, positive_weight=weight)


def score_of(task: Task) -> Score:
    """How a task is watched."""
    match task:
        case Task.MULTILABEL:
            return mean_average_precision
        case Task.BINARY:
            return decisions_right
        case _:
            return accuracy


def accuracy(logits: Tensor, labels: Tensor) -> Scores:
    """Share of images whose highest logit [N, K] is that of their label [N]."""
    return {"accuracy": (logits.argmax(1) == labels).double().mean().item()}


def decisions_right(logits: Tensor, labels: Tensor) -> Scores:
    """Average precision and, at a score of one half, accuracy; logits [N, 1]."""
    precision = average_precision(logits[:, 0], labels)
    right = ((logits[:, 0] >= 0) == labels.bool()).double().mean().item()
    return {"average_precision": precision, "accuracy": right}


def mean_average_precision(logits: Tensor, labels: Tensor) -> Scores:
    """mAP over the labels that occur; logits and labels [N, K]."""
    occurring = labels.bool().any(0).nonzero().flatten().tolist()
    values = [average_precision(logits[:, k], labels[:, k]) for k in occurring]
    return {"mAP": sum(values) / max(len(values), 1)}


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Mean, over the positives, of the precision at their score; [N] and [N].

    Images of the same score have no order: for each of them it is the precision after
    the last, as in scikit-learn. Few bits make them frequent, as in bfloat16.
    """
    order = scores.argsort(descending=True)
    hits = positive[order].double()
    if not hits.any():
        return 0.0
    ranked = scores[order]
    falls = (ranked[1:] != ranked[:-1]).nonzero().flatten()
    last = torch.cat((falls, falls.new_tensor([len(hits) - 1])))
    found = hits.cumsum(0)[last]  # down to each score that occurs
    precision = found / (last + 1)
    gained = found.diff(prepend=found.new_zeros(1))
    return ((precision * gained).sum() / found[-1]).item()
