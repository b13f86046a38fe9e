"""The temperature makes scores honest, and never runs away."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from tests.training.evaluation.logits import overconfident
from tests.training.evaluation.scored import answers_of
from training.evaluation.reliability import softmax_reliability
from training.rules.temperature import COLDEST, fit_temperature


def test_the_temperature_undoes_overconfidence():
    """Logits three times too large ask for a temperature of three."""
    logits, truth = overconfident()

    temperature = fit_temperature(logits, truth)

    assert temperature == pytest.approx(3, rel=0.05)
    before, after = (
        softmax_reliability(answers_of(softmax(logits / t, axis=1), truth))
        for t in (1, temperature)
    )
    assert after["ece"] < before["ece"] / 4
    assert after["nll"] < before["nll"]


def test_sigmoids_are_calibrated_by_the_same_rule():
    """Every yes/no of a multi-label set counts as an answer."""
    generator = np.random.default_rng(1)
    honest = generator.normal(size=(3000, 3))
    truth = generator.random(honest.shape) < expit(honest)

    assert fit_temperature(honest * 0.5, truth) == pytest.approx(0.5, rel=0.05)


def test_a_validation_set_without_mistakes_does_not_run_away():
    """Colder would be better for ever; the scores are left as they are."""
    logits = np.eye(4, dtype=np.float32) * 5

    assert fit_temperature(logits, np.arange(4)) == 1.0


@pytest.mark.parametrize("truth", [np.arange(50) % 5, np.eye(5, dtype=bool)[[0] * 50]])
def test_logits_that_are_all_equal_are_left_as_they_are(truth):
    """No temperature changes them, and they are too small for nothing."""
    assert fit_temperature(np.zeros((50, 5), np.float32), truth) == 1.0


@pytest.mark.parametrize("of_labels", [False, True])
def test_logits_that_are_far_too_small_get_the_coldest_temperature(of_labels):
    """Like cosines. With mistakes colder is not better for ever, only out of reach."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(1000, 4)) * 0.01
    chances = softmax(logits / 0.01, axis=1)
    truth = np.array([rng.choice(4, p=each) for each in chances])
    if of_labels:
        truth = rng.random(logits.shape) < expit(logits / 0.01)

    assert fit_temperature(logits, truth) == COLDEST


def test_shares_of_labels_are_never_without_mistakes():
    """Where annotators disagree, no answer is wholly right."""
    logits = np.eye(3, dtype=np.float32) * 0.01

    sure, unsure = np.eye(3), np.full((3, 3), 0.01) + 0.97 * np.eye(3)

    assert fit_temperature(logits, sure) == 1.0
    assert fit_temperature(logits, unsure) == COLDEST
