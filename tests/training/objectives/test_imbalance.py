"""Imbalance: frequencies of train become weights, shifts and a first guess."""

import math

import numpy as np
import pytest
import torch

from classifier.manifest import Task
from training.configs.train_sections import LossConfig
from training.objectives.imbalance import frequencies, positive_weight, prior_logits
from training.objectives.objective import build_objective

ONE_IN_TEN = np.array([1] * 9 + [0] * 89)  # 9 of 98: (9 + 1) / (98 + 2)


def test_frequencies_count_every_label_once_more():
    """Binary and multi-label: with and without; multi-class: each label."""
    several = np.array([[1, 0]] * 3 + [[1, 1]] * 5)

    assert frequencies(ONE_IN_TEN, Task.BINARY, count=2).tolist() == [
        pytest.approx(0.1)
    ]
    assert frequencies(several, Task.MULTILABEL, count=2).tolist() == pytest.approx(
        [9 / 10, 6 / 10]
    )
    assert frequencies(
        np.array([0, 0, 1]), Task.MULTICLASS, count=3
    ).tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])


@pytest.mark.parametrize(
    ("kind", "cap", "expected"),
    [("ratio", 20.0, 9.0), ("root", 20.0, 3.0), ("ratio", 5.0, 5.0)],
)
def test_positives_weigh_what_the_negatives_outnumber_them_by(kind, cap, expected):
    """Nine to one, its root, or the cap."""
    config = LossConfig(positive_weight=kind, positive_weight_cap=cap)

    [found] = positive_weight(torch.tensor([0.1]), config).tolist()

    assert found == pytest.approx(expected)


def test_frequent_positives_are_not_made_light():
    """The weight is for the rare; it is at least 1."""
    config = LossConfig(positive_weight="ratio")

    assert positive_weight(torch.tensor([0.8]), config).tolist() == [1]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LossConfig(), math.log(1 / 9)),
        (LossConfig(positive_weight="ratio"), 0.0),  # log (1/9) + log 9
        (LossConfig(kind="asymmetric"), math.log(1 / 9)),
    ],
)
def test_a_fresh_head_begins_at_rest(config, expected):
    """With the bias alone the loss of the whole of train cannot be lowered."""
    frequency = frequencies(ONE_IN_TEN, Task.BINARY, count=2)
    objective = build_objective(
        Task.BINARY, labels=2, config=config, frequency=frequency
    )

    assert objective.first_bias.tolist() == [pytest.approx(expected, abs=1e-5)]


def test_the_bias_that_a_head_begins_with_is_the_minimum_of_the_loss():
    """For a weighted loss too: its slope over all of train is nothing."""
    labels = np.array([1] * 100 + [0] * 900)
    objective = build_objective(
        Task.BINARY,
        labels=2,
        config=LossConfig(positive_weight="root"),
        frequency=torch.tensor([0.1]),
    )
    bias = objective.first_bias.clone().requires_grad_()

    logits = bias.expand(len(labels), 1)
    objective.loss(logits, objective.truth(torch.tensor(labels))).backward()

    assert abs(bias.grad.item()) < 1e-5


@pytest.mark.parametrize(
    "config", [LossConfig(prior_bias=False), LossConfig(logit_adjustment=1.0)]
)
def test_the_first_bias_is_left_alone_where_the_config_says_so(config):
    """Logit adjustment holds the frequencies in the loss instead."""
    frequency = frequencies(ONE_IN_TEN, Task.BINARY, count=2)
    objective = build_objective(
        Task.BINARY, labels=2, config=config, frequency=frequency
    )

    assert objective.first_bias is None


def test_the_prior_of_several_classes_is_left_to_the_network():
    """Softmax heads start as they come."""
    frequency = frequencies(np.array([0, 0, 1]), Task.MULTICLASS, count=2)

    objective = build_objective(Task.MULTICLASS, labels=2, frequency=frequency)

    assert objective.first_bias is None


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_adjustment_makes_a_rare_label_the_answer_of_equal_evidence(tau):
    """Tau 1 moves the border from the frequencies to one half, more goes further."""
    frequency = torch.tensor([0.9, 0.1])
    config = LossConfig(logit_adjustment=tau)
    objective = build_objective(
        Task.MULTICLASS, labels=2, config=config, frequency=frequency
    )

    at_rest = torch.zeros(1, 2)
    losses = [objective.loss(at_rest, torch.tensor([label])).item() for label in (0, 1)]

    both = 0.9**tau + 0.1**tau
    assert losses == pytest.approx([-math.log(p**tau / both) for p in (0.9, 0.1)])
    assert prior_logits(frequency, Task.MULTICLASS).exp().tolist() == pytest.approx(
        [0.9, 0.1]
    )
