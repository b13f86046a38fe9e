"""Abstention: what was asked for is what one gets."""

import numpy as np
import pytest

from training.evaluation.selective import (
    abstain_rule,
    clopper_pearson_upper,
    risk_coverage,
)

SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])


def test_the_risk_curve_ends_at_the_error_rate():
    """Who answers everything is wrong as often as the network is."""
    correct = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)

    curve = risk_coverage(SCORES, correct)

    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(3 / 8)
    assert curve.risk[0] == 0


def test_equal_scores_are_answered_together():
    """A threshold cannot tell them apart, so the curve has no point between them."""
    curve = risk_coverage(np.array([0.9, 0.9, 0.5]), np.array([True, False, True]))

    assert curve.coverage.tolist() == pytest.approx([2 / 3, 1])
    assert curve.risk.tolist() == pytest.approx([1 / 2, 1 / 3])


def test_the_bound_is_the_exact_one():
    """No mistake in n: 1 - 0.05^(1/n), the rule of three."""
    assert clopper_pearson_upper(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert clopper_pearson_upper(5, 5) == 1


def test_the_abstain_rule_keeps_its_promise():
    """The bounded risk is within what was asked, and one image more would break it."""
    generator = np.random.default_rng(0)
    score = generator.random(3000)
    correct = generator.random(3000) < 0.5 + score / 2

    rule = abstain_rule(score, correct, risk=0.1)

    assert rule is not None
    assert rule.risk <= rule.risk_bound <= 0.1
    answered = score >= rule.threshold
    assert answered.mean() == pytest.approx(rule.coverage)
    assert 1 - correct[answered].mean() == pytest.approx(rule.risk)


def test_an_impossible_risk_gives_no_rule():
    """Twenty images cannot promise one mistake in a thousand."""
    assert abstain_rule(np.linspace(0, 1, 20), np.ones(20, bool), risk=0.001) is None
