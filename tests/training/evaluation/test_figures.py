"""Figures are those of the logits, and decisions those of the service."""

import json

import numpy as np
import pytest
from scipy.special import logit

from classifier.manifest import Manifest, Task
from tests.synthetic import manifest_fields
from training.evaluation.evaluate import Evaluation
from training.evaluation.figures import measure
from training.evaluation.intervals import clopper_pearson

# About 17 is where 1 - score is 0 in float32; 100 / 0.5 is where exp is.
SURE = (3.0, 16.5, 17.5, 40.0, 100.0)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTILABEL, Task.MULTICLASS])
def test_a_confident_mistake_costs_what_its_logit_says(task: Task, temperature: float):
    """log(1 + exp(z/T)) nats, for the no to a yes and for the yes to a no.

    Of a score that is 1 in float32 nothing would be left; it used to cost 27.6.
    """
    fields = manifest_fields("colors", task, classes=2)
    fields["postprocess"]["temperature"] = temperature
    wrong = np.array([z for z in SURE for _ in range(2)], np.float32)  # [N]
    if task is Task.MULTICLASS:
        truth = np.arange(len(wrong)) % 2
        logits = np.where(np.arange(2) == truth[:, None], 0, wrong[:, None])
    else:
        truth = np.arange(len(wrong)) % 2 == 0
        logits = np.where(truth, -wrong, wrong)[:, None]
        if task is Task.MULTILABEL:
            truth, logits = np.tile(truth[:, None], 2), np.tile(logits, 2)

    manifest = Manifest.model_validate_json(json.dumps(fields))
    found, _, _ = measure(manifest, logits.astype(np.float32), truth)

    expected = np.logaddexp(0, wrong.astype(np.float64) / temperature).mean()
    assert found["nll"] == pytest.approx(expected, rel=1e-7)


def test_a_score_that_reaches_its_threshold_is_a_yes():
    """As the service decides; each label by its own threshold."""
    scores = np.array([[0.5, 0.5], [0.25, 0.75]])

    found = Evaluation(
        dataset="colors",
        split="test",
        labels=("red", "blue"),
        metrics={},
        intervals={},
        rows=[],
        truth=np.zeros((2, 2), bool),
        scores=scores,
        thresholds=(0.5, 0.75),
        names=["a", "b"],
    )

    assert found.predicted.tolist() == [[True, False], [False, True]]
    # of a sigmoid both ends of the scale are looked at: how often is it yes?
    assert [each.tolist() for each in found.answer_scores] == [
        [0.5, 0.5, 0.25, 0.75],
        4 * [False],
    ]


AT_07 = {"precision": (1, 2), "recall": (1, 3), "accuracy": (2, 5)}
AT_05 = {"precision": (3, 4), "recall": (3, 3), "accuracy": (4, 5)}


@pytest.mark.parametrize(
    ("task", "thresholds", "predicted", "shares"),
    [
        (Task.BINARY, [0.7], [2], AT_07),
        (Task.BINARY, [0.5], [4], AT_05),  # which two of the scores just reach
        (Task.MULTILABEL, [0.7, 0.5], [2, 4], {"exact_match": (2, 5)}),
    ],
)
def test_shares_and_rows_are_of_the_answers_at_the_thresholds(
    task: Task, thresholds: list[float], predicted: list[int], shares
):
    """So are their intervals."""
    fields = manifest_fields("colors", task, classes=2)
    fields["postprocess"]["thresholds"] = thresholds
    manifest = Manifest.model_validate_json(json.dumps(fields))
    logits = logit([[0.5], [0.5], [0.8], [0.8], [0.2]]).astype(np.float32)
    truth = np.array([True, True, True, False, False])
    if task is Task.MULTILABEL:
        logits, truth = np.tile(logits, 2), np.tile(truth[:, None], 2)

    found, intervals, rows = measure(manifest, logits, truth)

    assert [(row.n, row.predicted) for row in rows] == [(3, n) for n in predicted]
    for name, (successes, n) in shares.items():
        assert found[name] == successes / n
        assert intervals[name] == clopper_pearson(successes, n)


def test_a_label_of_the_right_group_is_right_by_its_group():
    """As the manifest groups them: green and blue are cold, and red is warm."""
    fields = manifest_fields("colors", Task.FINE_GRAINED)
    manifest = Manifest.model_validate_json(json.dumps(fields))
    green = np.tile(np.float32([0, 9, 0]), (4, 1))

    found, _, _ = measure(manifest, green, np.array([1, 2, 2, 0]))

    assert (found["accuracy"], found["group_accuracy"]) == (1 / 4, 3 / 4)
