"""Intervals hold what they should, and are there where they are needed."""

import logging

import pytest
from scipy.special import softmax

from tests.training.evaluation.logits import overconfident
from training.evaluation.answers import Answers
from training.evaluation.intervals import bootstrap
from training.evaluation.reliability import softmax_reliability


def test_bootstrap_intervals_hold_the_value_and_shrink_with_images():
    """Ten times the images, about a third of the width."""

    def widths(n: int) -> float:
        logits, truth = overconfident(n)
        answers = Answers.of(softmax(logits, axis=1), truth)
        low, high = bootstrap(
            lambda index: softmax_reliability(answers.select(index)), n, rounds=50
        )["nll"]
        assert low < softmax_reliability(answers)["nll"] < high
        return high - low

    assert widths(3000) < widths(300) / 2


def test_drawing_anew_is_told_before_it_begins(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Many images of many labels take minutes; nobody should have to guess why."""
    # a command that ran before in this process keeps the lines to itself
    monkeypatch.setattr(logging.getLogger("training"), "propagate", True)

    with caplog.at_level(logging.INFO, "training"):
        bootstrap(lambda index: {"first": float(index[0])}, 7, rounds=3)

    assert caplog.messages == ["95 % intervals: 7 images drawn anew, 3 times"]
