"""train labels → **what frequency asks for**: weights, shifts and a first guess.

Axes: N images, K logits (1 for binary). Frequencies count every label once more than it
occurs, with and without, so that none is 0 or 1 (Laplace's rule of succession).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.manifest import Task
from training.configs.train_sections import LossConfig


def frequencies(labels: NDArray[np.integer], task: Task, *, count: int) -> Tensor:
    """How often each of `count` labels occurs in train, float [K] between 0 and 1.

    Labels are class indices [N], or 0/1 [N, K]. For binary K is 1: that of the yes.
    """
    if task is Task.MULTILABEL:
        occurring = (labels.sum(axis=0) + 1) / (len(labels) + 2)
    elif task is Task.BINARY:
        occurring = np.array([(labels.sum() + 1) / (len(labels) + 2)])
    else:
        counts = np.bincount(labels, minlength=count)
        occurring = (counts + 1) / (len(labels) + count)
    return torch.tensor(occurring, dtype=torch.float32)


def prior_logits(frequency: Tensor, task: Task) -> Tensor:
    """The logits [K] that answer every image with the frequencies."""
    if task.activation == "sigmoid":
        return torch.logit(frequency)
    return frequency.log()


def positive_weight(frequency: Tensor, config: LossConfig) -> Tensor | None:
    """By how much a positive outweighs a negative, [K]: negatives / positives or its
    root, at least 1 and at most the cap; None where all count alike.
    """
    if config.positive_weight == "none":
        return None
    ratio = (1 - frequency) / frequency
    wanted = ratio.sqrt() if config.positive_weight == "root" else ratio
    return wanted.clamp(1, config.positive_weight_cap)
