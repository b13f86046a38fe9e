"""What turns logits into decisions is fitted to validation as a whole."""

import numpy as np
import pytest

from classifier.manifest import PostprocessSpec, Task
from classifier.postprocess import probabilities
from tests.training.evaluation.logits import overconfident
from training.configs.task_sections import BundleConfig
from training.rules.rules import (
    answers,
    decisions,
    fit_rules,
    out_of_fold_f1_lines,
)
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


def test_a_score_that_reaches_its_threshold_counts():
    """As the service decides, for a yes as for an answer that is not withheld."""
    half = {"temperature": 1.0, "top_k": 1}
    detector = PostprocessSpec(
        activation="sigmoid", thresholds=(0.5,), abstain_threshold=None, **half
    )
    careful = PostprocessSpec(
        activation="softmax", thresholds=None, abstain_threshold=0.5, **half
    )

    assert decisions(np.zeros((1, 1), np.float32), detector).tolist() == [True]
    assert answers(np.zeros((1, 2), np.float32), careful).tolist() == [0]


def test_thresholds_of_labels_are_chosen_across_scenes():
    """All images of one scene: there is no other to hold out, nothing to promise, and
    one threshold for both labels.
    """
    generator = np.random.default_rng(0)
    truth = generator.random((200, 2)) < 0.5
    logits = (np.where(truth, [1, 5], [-1, 3]) + generator.normal(size=truth.shape)) / 2
    logits = logits.astype(np.float32)

    found = []
    for scenes in (None, np.zeros(200, np.int64)):
        rules = fit_rules(
            logits, truth, Task.MULTILABEL, BundleConfig(), labels=2, scenes=scenes
        )
        promised = out_of_fold_f1_lines(logits, truth, rules, scenes=scenes)
        found.append((len(set(rules.thresholds)), len(promised), rules.top_k))

    assert found == [(2, 1, 2), (1, 0, 2)]
