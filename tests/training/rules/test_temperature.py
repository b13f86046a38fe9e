"""The temperature makes scores honest, and never runs away."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from tests.training.evaluation.logits import overconfident
from tests.training.evaluation.scored import answers_of
from training.evaluation.reliability import softmax_reliability
from training.rules.temperature import fit_temperature


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
