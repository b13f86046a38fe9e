"""Abstention: what was asked for is what one gets."""

import numpy as np
import pytest

from tests.training.evaluation.scored import answers_of
from training.evaluation.answers import multiclass_metrics
from training.evaluation.selective import (
    abstain_rule,
    clopper_pearson_upper,
    evidence,
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


def test_the_area_under_the_curve_tells_the_best_order_from_none():
    """Of 10,000 answers a tenth is wrong: those of the lowest scores, or any."""
    scores = np.linspace(1, 0, 10_000)
    last, any_ = scores < 0.1, np.random.default_rng(0).random(10_000) < 0.1

    best = 0.1 + 0.9 * np.log(0.9)
    assert risk_coverage(scores, ~last).aurc == pytest.approx(best, rel=0.01)
    assert risk_coverage(scores, ~any_).aurc == pytest.approx(0.1, rel=0.1)


def test_equal_scores_are_answered_together():
    """A threshold cannot tell them apart, so the curve has no point between them."""
    curve = risk_coverage(np.array([0.9, 0.9, 0.5]), np.array([True, False, True]))

    assert curve.coverage.tolist() == pytest.approx([2 / 3, 1])
    assert curve.risk.tolist() == pytest.approx([1 / 2, 1 / 3])


def test_the_bound_is_the_exact_one():
    """No mistake in n: 1 - 0.05^(1/n), the rule of three."""
    assert clopper_pearson_upper(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert clopper_pearson_upper(5, 5) == 1


def test_the_abstain_rule_is_what_it_says():
    """Its coverage and its risk are those of the images, its bound within the wish."""
    generator = np.random.default_rng(0)
    score = generator.random(3000)
    correct = generator.random(3000) < 0.5 + score / 2

    rule = abstain_rule(score, correct, risk=0.1)

    assert rule is not None
    assert rule.risk <= rule.risk_bound <= 0.1
    answered = score >= rule.threshold
    assert answered.mean() == pytest.approx(rule.coverage)
    assert 1 - correct[answered].mean() == pytest.approx(rule.risk)


def test_where_all_are_answered_rounding_turns_no_image_away():
    """Another processor's score of the least sure image may be a little lower."""
    score = np.linspace(0.5, 0.9, 200)

    rule = abstain_rule(score, np.ones(200, bool), risk=0.05)

    assert rule is not None
    assert (rule.coverage, rule.threshold) == (1, 0.25)


@pytest.mark.parametrize("n", [300, 1000, 3000])
def test_a_risk_over_the_wish_is_seldom_granted(n: int):
    """Wrong in 5.1 % whatever the score: with 95 % confidence there is no rule."""
    generator = np.random.default_rng(0)

    granted = [
        abstain_rule(generator.random(n), generator.random(n) >= 0.051, risk=0.05)
        for _ in range(400)
    ]

    # 5 % at most; by chance 400 rounds of exactly 5 % give over 7.5 % once in a hundred
    assert np.mean([rule is not None for rule in granted]) <= 0.075


def test_a_threshold_keeps_its_promise_on_images_to_come():
    """Wrong in 30 % of the least sure and in none of the surest: risk 15 (1 - t) %."""
    generator = np.random.default_rng(0)
    rules = []
    for _ in range(300):
        score = generator.random(2000)
        correct = generator.random(2000) >= 0.3 * (1 - score)
        rules.append(abstain_rule(score, correct, risk=0.05))

    true_risks = [0.15 * (1 - rule.threshold) for rule in rules if rule is not None]
    assert len(true_risks) > 0.8 * len(rules)
    assert np.mean(np.array(true_risks) > 0.05) <= 0.075


@pytest.mark.parametrize(("scenes", "risk"), [(20, 0.2), (70, 0.05), (200, 0.05)])
@pytest.mark.parametrize("sizes", ["equal", "unequal"])
def test_scenes_do_not_grant_what_their_images_would(
    scenes: int, risk: float, sizes: str
):
    """Scenes are sure, and wrong, as one: more often than asked for, seldom granted."""
    generator = np.random.default_rng(0)
    granted = {True: 0, False: 0}
    for _ in range(60):
        each = generator.geometric(1 / 15, scenes) if sizes == "unequal" else 20
        of_image = np.repeat(np.arange(scenes), each)
        correct = (generator.random(scenes) >= 1.02 * risk)[of_image]
        score = generator.random(scenes)[of_image] + 0.1 * generator.random(
            len(correct)
        )
        for told in granted:
            known = of_image if told else None
            rule = abstain_rule(score, correct, risk=risk, scenes=known)
            granted[told] += rule is not None

    # by chance 60 rounds of exactly 5 % give 8 or more once in a hundred
    assert granted[True] <= 7
    assert granted[False] >= 20  # as if images were independent


def test_a_scene_of_one_image_is_an_image():
    """Scenes without neighbors change no rule."""
    generator = np.random.default_rng(0)
    score = generator.random(1000)
    correct = generator.random(1000) < 0.9 + score / 10

    rules = [
        abstain_rule(score, correct, risk=0.05, scenes=scenes)
        for scenes in (None, np.arange(1000))
    ]

    assert rules[0] is not None
    assert rules[0] == rules[1]


def test_most_images_in_one_scene_are_little_evidence():
    """A hundred scenes are worth a hundred images, or two where one has most."""
    assert evidence(1000) == 1000
    assert evidence(1000, np.arange(1000) // 10) == pytest.approx(100)
    uneven = np.maximum(np.arange(1000) - 700, 0)  # 701 of the first scene
    assert 2 < evidence(1000, uneven) < 2.1


@pytest.mark.parametrize("n", [300, 3000])
def test_a_good_classifier_gets_its_rule(n: int):
    """2 % wrong, all of them among the less sure half: it answers nearly always."""
    score, correct = np.linspace(0, 1, n), np.ones(n, bool)
    correct[: n // 2 : 25] = False

    rule = abstain_rule(score, correct, risk=0.05)

    assert rule is not None
    assert rule.coverage >= 0.9


def test_coverages_too_small_to_pass_are_not_the_end_of_the_sequence():
    """3 of 60 without a mistake promise nothing; all 60 bound the risk by 4.9 %."""
    rule = abstain_rule(np.linspace(0, 1, 60), np.ones(60, bool), risk=0.05)

    assert rule is not None
    assert rule.coverage == 1
    assert rule.risk_bound == pytest.approx(0.0487, abs=1e-4)


def test_equal_scores_pass_or_fail_together():
    """Whoever is always equally sure answers everything or nothing."""
    correct = np.arange(200) >= 4

    rule = abstain_rule(np.full(200, 0.9), correct, risk=0.05)

    assert rule is not None
    assert (rule.coverage, rule.risk) == (1, 0.02)
    assert abstain_rule(np.full(200, 0.9), correct, risk=0.04) is None


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_threshold_between_neighbors_of_float32_parts_them(step: int):
    """Both scores are a hair under 1; only the higher one is answered."""
    unit = np.float32(2**-24)  # from one float32 to the next, under 1
    high, low = 1 - step * unit, 1 - (step + 1) * unit
    score = np.repeat(np.array([high, low]), (400, 1600))
    correct = (np.arange(2000) < 400) | (np.arange(2000) % 5 > 0)

    rule = abstain_rule(score, correct, risk=0.05)

    assert rule is not None
    assert rule.coverage == 0.2
    assert float(low) < rule.threshold < float(high)
    answers = answers_of(np.column_stack([score, 1 - score]), (~correct).astype(int))
    figures = multiclass_metrics(answers, abstain_threshold=rule.threshold)
    assert (figures["coverage"], figures["risk"]) == (0.2, 0)


def test_an_impossible_risk_gives_no_rule():
    """Twenty images cannot promise one mistake in a thousand."""
    assert abstain_rule(np.linspace(0, 1, 20), np.ones(20, bool), risk=0.001) is None
