"""Figures of confident mistakes are those of the logits, not of rounded scores."""

import json

import numpy as np
import pytest

from classifier.manifest import Manifest, Task
from tests.synthetic import manifest_fields
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
