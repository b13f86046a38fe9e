"""Objectives: what a batch's labels mean to a loss and to a score."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from classifier.manifest import Task
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
    assert objective.loss(answer, objective.truth(truth)) < 1e-6
    assert set(objective.score(answer, truth).values()) == {1.0}


def test_a_detector_decides_at_a_score_of_one_half():
    """Which is a logit of 0, however near to it."""
    objective = build_objective(Task.BINARY, labels=2)
    logits = torch.tensor([[0.1], [-0.1]])

    for labels, accuracy in (([1, 0], 1.0), ([0, 1], 0.0)):
        scores = objective.score(logits, torch.tensor(labels))
        assert scores["accuracy"] == accuracy


def test_labels_that_do_not_occur_have_no_part_in_map():
    """No order of the images would be better than another."""
    objective = build_objective(Task.MULTILABEL, labels=3)
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])

    found = objective.score(logits, torch.tensor([[1, 1, 0], [0, 0, 0]]))

    assert found["mAP"] == pytest.approx((1 + 1 / 2) / 2)
