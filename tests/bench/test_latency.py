"""shots → summary."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.latency import (
    BROKEN,
    EXPIRED,
    Shot,
    judge_retry_after,
    percentile,
    retry_after_is_right,
    summarize,
)


def shot(sent_s, done_s, status=200, **more):
    """A request that was sent when it was meant to be."""
    return Shot(sent_s, sent_s, done_s, status, **more)


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (100, 100)],
)
def test_a_percentile_is_the_nearest_rank(percent, expected):
    """Of 1 to 100, the p-th percentile is p: no interpolation invents a latency."""
    assert percentile(range(100, 0, -1), percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(values, percent):
    """That is its definition, whatever the values."""
    found = percentile(values, percent)

    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9


def test_no_values_have_no_percentile():
    """A zero would look like a perfect latency."""
    assert math.isnan(percentile([], 99))


def test_latency_counts_from_the_intended_instant():
    """A client that got round to it 3 s late must not hide those 3 s."""
    late = Shot(intended_s=1.0, sent_s=4.0, done_s=4.5, status=200)

    summary = summarize([late], seconds=1)

    assert summary.p50_ms == pytest.approx(3500)
    assert summary.send_lag_p99_ms == pytest.approx(3000)


def test_refusals_are_fast_and_therefore_not_in_the_latencies():
    """A server that refuses 99 of 100 at once has not become fast by it."""
    refused = [shot(0.0, 0.001, 503) for _ in range(99)]

    summary = summarize([shot(0.0, 2.0), *refused], seconds=2)

    assert summary.p50_ms == pytest.approx(2000)
    assert summary.answered_per_s == 0.5
    assert summary.statuses == {"200": 1, "503": 99}


def test_goodput_leaves_out_what_came_too_late():
    """An answer past its deadline is of no use to anyone."""
    shots = [shot(0.0, 0.4), shot(0.0, 0.5), shot(0.0, 0.6)]

    summary = summarize(shots, seconds=1, deadline_s=0.5)

    assert summary.goodput_per_s == 2
    assert summary.late == 1
    assert summary.answered_per_s == 3


def test_what_is_answered_after_the_load_is_no_rate_of_it():
    """A service of one a second does not do three because two still wait at its end."""
    shots = [shot(0.0, 1.0), shot(0.1, 2.0), shot(0.2, 3.0, images=32)]

    summary = summarize(shots, seconds=1, deadline_s=5)

    assert summary.answered_per_s == summary.images_per_s == summary.goodput_per_s == 1
    assert summary.statuses == {"200": 3}
    assert summary.late == 0


def test_a_batch_counts_as_its_images():
    """One request of 32 does the work of 32."""
    summary = summarize([shot(0.0, 1.0, images=32)], seconds=2)

    assert (summary.answered_per_s, summary.images_per_s) == (0.5, 16)


def test_what_never_got_an_answer_is_named():
    """Broken and expired are not HTTP statuses and do not pose as such."""
    shots = [shot(0, 1, BROKEN), shot(0, 30, EXPIRED), shot(0, 1, 504)]

    assert summarize(shots, seconds=1).statuses == {
        "504": 1,
        "broken": 1,
        "expired": 1,
    }


@pytest.mark.parametrize(
    ("told_s", "true_s", "right"),
    [
        (1, 0.01, True),  # whole seconds: there is nothing smaller to say
        (2, 0.01, False),
        (4, 4.0, True),
        (4, 8.0, True),
        (4, 8.1, False),
        (4, 2.0, True),
        (4, 1.9, False),
        (0, 0.5, False),
    ],
)
def test_retry_after_is_right_within_a_factor_of_two(told_s, true_s, right):
    """Or within the first second, the least that the header can say."""
    assert retry_after_is_right(told_s, true_s) is right


def test_retry_after_is_held_against_what_was_inside_at_the_refusal():
    """Refused at 1 s; the last that had entered by then left at 5: the wait was 4 s."""
    inside = [shot(0.0, 3.0), shot(0.5, 5.0)]
    later = shot(1.5, 9.0)  # entered after the refusal: not its wait
    refused = shot(1.0, 1.0, 503, retry_after_s=4.0)

    verdict = judge_retry_after([*inside, later, refused])

    assert verdict["true_s_median"] == pytest.approx(4.0)
    assert verdict["right"] == 1


def test_a_refusal_without_retry_after_is_not_right():
    """Silence is not within a factor of two."""
    verdict = judge_retry_after([shot(0, 2), shot(1, 1, 503)])

    assert (verdict["without"], verdict["share_right"]) == (1, 0)


def test_nothing_refused_nothing_to_judge():
    """A share of none would be a number without a meaning."""
    assert judge_retry_after([shot(0, 1)]) is None
