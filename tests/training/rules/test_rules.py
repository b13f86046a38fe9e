"""What turns logits into decisions is fitted to validation as a whole."""

import numpy as np
import pytest

from classifier.manifest import Task
from classifier.postprocess import probabilities
from tests.training.evaluation.logits import overconfident
from training.configs.task_sections import BundleConfig
from training.rules.rules import fit_rules
from training.rules.temperature import fit_temperature


def test_rules_have_the_temperature_of_the_validation_logits():
    """Logits three times too large are divided by three."""
    logits, truth = overconfident()

    rules = fit_rules(logits, truth, Task.MULTICLASS, BundleConfig(), labels=5)

    assert rules.temperature == fit_temperature(logits, truth)
    assert rules.temperature == pytest.approx(3, rel=0.05)


def test_a_threshold_is_one_of_the_scores_at_that_temperature():
    """Of the positives, as many score that high as the wanted recall asks for."""
    logits, classes = overconfident(400)
    logits, truth = logits[:, :1], classes == 0
    config = BundleConfig(recall=0.75)

    rules = fit_rules(logits, truth, Task.BINARY, config, labels=2)

    assert rules.temperature == fit_temperature(logits, truth[:, None]) != 1
    positives = probabilities(logits, rules)[truth]
    needed = np.ceil(0.75 * truth.sum())
    assert (positives >= rules.thresholds[0]).sum() == needed
