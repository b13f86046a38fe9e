"""A card says what was measured, and leaves empty what could not be."""

import json

import numpy as np

from classifier.manifest import Manifest, Precision, Task
from tests.synthetic import manifest_fields
from training.evaluation.answers import Answers, per_class
from training.evaluation.evaluate import Evaluation
from training.reports.card import CardFacts, write_card


def measured(scores: np.ndarray, truth: np.ndarray, **metrics: float) -> Evaluation:
    """An evaluation of red, green and blue."""
    return Evaluation(
        dataset="colors",
        split="test",
        labels=("red", "green", "blue"),
        metrics=metrics,
        intervals={},
        rows=per_class(Answers.of(scores, truth)),
        truth=truth,
        scores=scores,
        thresholds=None,
        names=[],
    )


def test_what_is_undefined_is_an_empty_cell():
    """No image is blue and none was called so; int8 has no figure called risk."""
    fields = manifest_fields("colors", Task.MULTICLASS)
    manifest = Manifest.model_validate_json(json.dumps(fields))
    scores, truth = np.eye(3)[[0, 1, 0]], np.array([0, 1, 1])
    evaluations = {
        Precision.FP32: measured(scores, truth, accuracy=2 / 3, risk=0.25),
        Precision.INT8: measured(scores, truth, accuracy=2 / 3),
    }

    card = write_card(CardFacts(manifest, evaluations, (), ()))

    assert "| accuracy | 0.6667 | 0.6667 |  |" in card
    assert "| risk | 0.2500 |  |  |" in card
    assert "| green | 2 | 1.000 | 0.500 | 0.667 | +0.000 |" in card
    assert "| blue | 0 |  |  |  |  |" in card
