"""Objectives: what a batch's labels mean to a loss and to a score."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from classifier.manifest import Task
from training.configs.train_sections import LossConfig
from training.objectives.losses import (
    asymmetric,
    binary_cross_entropy,
    cross_entropy,
)
from training.objectives.objective import average_precision, build_objective


@pytest.mark.parametrize("places", [16, 1, 0], ids=["no ties", "ties", "two scores"])
def test_average_precision_is_that_of_scikit_learn(places):
    """On random scores, which may be rounded until many are the same."""
    rng = np.random.default_rng(0)
    scores, truth = rng.random(200).round(places), rng.random(200) < 0.1

    ours = average_precision(torch.tensor(scores), torch.tensor(truth))
    assert ours == pytest.approx(average_precision_score(truth, scores))


@pytest.mark.parametrize("positive", [range(10), range(90, 100), range(0, 100, 10)])
def test_a_score_that_is_the_same_for_all_ranks_none_of_them(positive):
    """Its average precision is the share of positives, wherever they stand."""
    truth = torch.zeros(100, dtype=torch.uint8)
    truth[list(positive)] = 1
    scores = torch.full((100,), 0.3)

    assert average_precision(scores, truth) == pytest.approx(0.1)
    assert average_precision_score(truth, scores) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("task", "labels", "logits"),
    [(Task.BINARY, 2, 1), (Task.MULTICLASS, 5, 5), (Task.MULTILABEL, 5, 5)],
)
def test_a_perfect_answer_has_the_best_score_and_nearly_no_loss(task, labels, logits):
    """For every task, with the truth in the loss's own form."""
    objective = build_objective(task, labels=labels)
    if task is Task.MULTILABEL:
        truth = torch.eye(5, dtype=torch.uint8)
        answer = truth.float() * 60 - 30
    else:
        truth = torch.arange(4) % labels
        wanted = torch.nn.functional.one_hot(truth, labels).float() * 60 - 30
        answer = wanted[:, 1:] if task is Task.BINARY else wanted

    assert objective.logits == logits
    in_its_form = objective.truth(truth)
    assert objective.loss(answer, in_its_form) < 1e-6
    assert objective.losses(answer, in_its_form).shape == (len(truth),)
    assert set(objective.score(answer, truth).values()) == {1.0}
    assert list(objective.watched(answer, truth))[-1] == "loss"  # the first one decides


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTICLASS, Task.MULTILABEL])
def test_truth_that_is_mixed_has_a_share_for_each_logit(task):
    """Only mixing needs that of a class index, and pays for it."""
    objective = build_objective(task, labels=2)
    several = task is Task.MULTILABEL
    labels = torch.tensor([[0, 1], [1, 0], [1, 1]] if several else [1, 0, 1])

    mixed = objective.truth(labels, mixing=True)

    assert (mixed.shape, mixed.dtype) == ((3, objective.logits), torch.float32)
    indices = objective.truth(labels) is labels
    assert indices == (task is Task.MULTICLASS)


@pytest.mark.parametrize(
    ("task", "config", "named"),
    [
        (Task.MULTICLASS, LossConfig(), cross_entropy(label_smoothing=0.1)),
        (Task.MULTILABEL, LossConfig(), binary_cross_entropy(label_smoothing=0.1)),
        (
            Task.MULTILABEL,
            LossConfig(kind="asymmetric", gamma_positive=1, gamma_negative=3, clip=0.2),
            asymmetric(
                gamma_positive=1, gamma_negative=3, clip=0.2, label_smoothing=0.1
            ),
        ),
    ],
    ids=["softmax", "sigmoid", "asymmetric"],
)
def test_the_loss_is_the_one_that_is_named(task, config, named):
    """With its numbers; of bfloat16 logits it is computed in float32, too."""
    objective = build_objective(task, labels=3, label_smoothing=0.1, config=config)
    logits = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.bfloat16)
    truth = torch.tensor([[1.0, 0.0, 1.0]] if task is Task.MULTILABEL else [1])

    found = objective.loss(logits, truth)

    assert found.dtype == torch.float32
    assert torch.equal(found, named(logits.float(), truth))


def test_a_detector_decides_at_a_score_of_one_half():
    """Which is a logit of 0, however near to it, and already a yes as when served."""
    objective = build_objective(Task.BINARY, labels=2)
    logits = torch.tensor([[0.0], [-0.1]])

    for labels, accuracy in (([1, 0], 1.0), ([0, 1], 0.0)):
        scores = objective.score(logits, torch.tensor(labels))
        assert scores["accuracy"] == accuracy


def test_without_a_positive_there_is_no_precision():
    """0, which no ranking is praised for."""
    assert average_precision(torch.tensor([0.5, 0.1]), torch.tensor([0, 0])) == 0


def test_labels_that_do_not_occur_have_no_part_in_map():
    """No order of the images would be better than another."""
    objective = build_objective(Task.MULTILABEL, labels=3)
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])

    found = objective.score(logits, torch.tensor([[1, 1, 0], [0, 0, 0]]))

    assert found["mAP"] == pytest.approx((1 + 1 / 2) / 2)
