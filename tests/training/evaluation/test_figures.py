"""Figures are those of the logits, and decisions those of the service."""

import json

import numpy as np
import pytest

from classifier.manifest import Manifest, Task
from tests.synthetic import manifest_fields
from training.evaluation.evaluate import Evaluation
from training.evaluation.figures import measure

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
