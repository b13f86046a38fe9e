"""Calibration: errors, temperature, and that neither touches accuracy."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from training.evaluation import reliability
from training.rules.temperature import fit_temperature


def overconfident(n: int = 4000, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 5] that are `factor` times what the truth was drawn from."""
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(n, 5)) * 1.5
    cumulated = softmax(honest, axis=1).cumsum(axis=1)
    truth = (generator.random((n, 1)) > cumulated).sum(axis=1).clip(max=4)
    return (honest * factor).astype(np.float32), truth


def test_scores_that_are_right_as_often_as_they_say_have_no_error():
    """Eight of ten answers at 0.8 are right."""
    score, correct = np.full(10, 0.8), np.arange(10) < 8

    bins = reliability.equal_width_bins(score, correct)

    assert [b.n for b in bins] == [10]
    assert reliability.expected_calibration_error(bins) == pytest.approx(0)


def test_the_error_is_the_gap_weighted_by_images():
    """Half the answers claim 1.0 and are wrong: 0.5 · 1 + 0.5 · 0."""
    score = np.array([1.0, 1.0, 0.0, 0.0])

    found = reliability.expected_calibration_error(
        reliability.equal_width_bins(score, np.zeros(4, bool))
    )

    assert found == pytest.approx(0.5)


def test_bins_of_equal_mass_hold_equal_numbers():
    """However the scores crowd, each bin has its share of the images."""
    score = np.random.default_rng(0).beta(8, 1, size=150)

    bins = reliability.equal_mass_bins(score, score > 0.5)

    assert {b.n for b in bins} == {10}


def test_the_temperature_undoes_overconfidence():
    """Logits three times too large ask for a temperature of three."""
    logits, truth = overconfident()

    temperature = fit_temperature(logits, truth)

    assert temperature == pytest.approx(3, rel=0.05)
    before = reliability.softmax_reliability(softmax(logits, axis=1), truth)
    after = reliability.softmax_reliability(
        softmax(logits / temperature, axis=1), truth
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


def test_bootstrap_intervals_hold_the_value_and_shrink_with_images():
    """Ten times the images, about a third of the width."""

    def widths(n: int) -> float:
        logits, truth = overconfident(n)
        low, high = reliability.bootstrap(
            reliability.softmax_reliability, softmax(logits, axis=1), truth, rounds=50
        )["nll"]
        found = reliability.softmax_reliability(softmax(logits, axis=1), truth)["nll"]
        assert low < found < high
        return high - low

    assert widths(3000) < widths(300) / 2
