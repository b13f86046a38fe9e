"""Objectives: what a batch's labels mean to a loss and to a score."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from classifier.manifest import Task
from training.objectives.objective import average_precision, build_objective


def test_average_precision_is_that_of_scikit_learn():
    """On random scores without ties."""
    rng = np.random.default_rng(0)
    scores, truth = rng.random(200), rng.random(200) < 0.1

    ours = average_precision(torch.tensor(scores), torch.tensor(truth))
    assert ours == pytest.approx(average_precision_score(truth, scores))


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
