"""Calibration errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation import reliability


def test_scores_that_are_right_as_often_as_they_say_have_no_error():
    """Eight of ten answers at 0.8 are right."""
    score, correct = np.full(10, 0.8), np.arange(10) < 8

    bins = reliability.equal_width_bins(score, correct)

    assert [b.n for b in bins] == [10]
    assert reliability.expected_calibration_error(bins) == pytest.approx(0)


def test_the_error_is_the_gap_weighted_by_images():
    """Half the answers claim 1.0 and are wrong, half claim 0.0 of which one in two is
    right: 0.5 · 1 + 0.5 · 0.5. Too sure and not sure enough make up for nothing.
    """
    score, correct = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 0, 1], bool)

    found = reliability.expected_calibration_error(
        reliability.equal_width_bins(score, correct)
    )

    assert found == pytest.approx(0.75)


def test_bins_of_equal_mass_hold_equal_numbers():
    """However the scores crowd, each bin has its share of the images."""
    score = np.random.default_rng(0).beta(8, 1, size=150)

    bins = reliability.equal_mass_bins(score, score > 0.5)

    assert {b.n for b in bins} == {10}


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_the_order_of_images_changes_no_error(images, random):
    """Data that is sorted by class has all mistakes of a score side by side."""

    def error(answers) -> float:
        levels, correct = (np.array(column) for column in zip(*answers, strict=True))
        bins = reliability.equal_mass_bins(levels / 4, correct)
        return reliability.expected_calibration_error(bins)

    shuffled = images.copy()
    random.shuffle(shuffled)

    assert error(shuffled) == pytest.approx(error(images))


def test_a_score_that_all_images_have_is_right_by_their_share():
    """Half of them are positive, first the ones and then the others: 0.5 is honest."""
    bins = reliability.equal_mass_bins(np.full(300, 0.5), np.arange(300) < 150)

    assert len(bins) == 15
    assert reliability.expected_calibration_error(bins) == pytest.approx(0)


def test_brier_is_the_mean_square_of_what_the_score_lacks():
    """0.2 for a no and 0.4 for a yes: (0.04 + 0.36) / 2, and no root of it."""
    score, truth = np.array([[0.2], [0.4]], np.float32), np.array([False, True])

    found = reliability.sigmoid_reliability(score, truth, nll=np.zeros(2))

    assert found["brier"] == pytest.approx((0.2**2 + 0.6**2) / 2)


def test_scores_that_differ_are_binned_as_they_are():
    """Each image by its own truth."""
    score = np.random.default_rng(0).random(60)
    order, correct = np.argsort(score), np.random.default_rng(1).random(60) < 0.5

    bins = reliability.equal_mass_bins(score, correct)

    expected = [float(correct[part].mean()) for part in np.array_split(order, 15)]
    assert [b.share_correct for b in bins] == expected


def test_a_score_on_an_edge_is_in_the_bin_under_it():
    """As in the paper; 0 has none under it, and is in the first."""
    bins = reliability.equal_width_bins(
        np.array([0, 0.25, 0.5, 0.5, 1]), np.ones(5, bool), bins=4
    )

    assert [(b.high, b.n) for b in bins] == [(0.25, 2), (0.5, 2), (1, 1)]
