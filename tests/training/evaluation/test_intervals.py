"""Intervals hold what they should, and are there where they are needed."""

import json
import logging

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom

from classifier.manifest import Manifest, Task
from tests.synthetic import manifest_fields
from tests.training.evaluation.logits import overconfident
from training.evaluation.answers import Answers
from training.evaluation.evaluate import measure
from training.evaluation.intervals import bootstrap, clopper_pearson
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
    # a command that ran before in this process may keep the lines to itself
    logger = logging.getLogger("training")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])

    with caplog.at_level(logging.INFO, "training"):
        bootstrap(lambda index: {"first": float(index[0])}, 7, rounds=3)

    assert caplog.messages == ["95 % intervals: 7 images drawn anew, 3 times"]


def manifest(task: Task, *, classes: int = 3) -> Manifest:
    """Of a bundle whose thresholds are 0.9 where the task has some."""
    fields = manifest_fields("colors", task, classes=classes)
    return Manifest.model_validate_json(json.dumps(fields))


def test_no_mistake_in_sixty_is_not_certainty():
    """The exact interval: 0.94 in sixty would still bring no mistake once in forty."""
    found, intervals, _ = measure(
        manifest(Task.MULTICLASS), np.eye(3)[np.arange(60) % 3], np.arange(60) % 3
    )

    assert found["accuracy"] == 1
    assert intervals["accuracy"] == (pytest.approx(0.025 ** (1 / 60)), 1)
    assert all(low < high for low, high in intervals.values())


def test_exact_intervals_hold_the_share_as_often_as_they_say():
    """The outcomes of 40 trials whose interval holds 0.93 weigh 95 % or more."""
    ends = [clopper_pearson(successes, 40) for successes in range(41)]
    weights = binom.pmf(np.arange(41), 40, 0.93)

    held = sum(
        w for w, (low, high) in zip(weights, ends, strict=True) if low <= 0.93 <= high
    )

    assert 0.95 <= held < 1


def mean_of_positives(positives: int) -> tuple[float, float] | None:
    """The interval of a figure that is undefined without one of few positives."""
    scores = np.random.default_rng(0).random(1000)

    def statistics(index: np.ndarray) -> dict[str, float]:
        drawn = index[index < positives]
        return {"mean": float(scores[drawn].mean())} if len(drawn) else {}

    return bootstrap(statistics, 1000).get("mean")


def test_a_figure_that_few_rounds_lack_keeps_its_interval():
    """Of five positives one round in 150 draws none; that round is passed over."""
    low, high = mean_of_positives(5) or (0, 0)

    assert 0 < low < high < 1


def test_a_figure_that_many_rounds_lack_has_no_interval():
    """Of two positives one round in seven draws none; of one there is no spread."""
    assert mean_of_positives(2) is None
    assert mean_of_positives(1) is None


def test_what_only_rounding_moves_has_no_interval():
    """A mean of ones is 1 or 0.9999999999999999, as the order of the sum goes."""
    values = np.nextafter(1.0, np.array([0.0, 2.0]))  # just under and just over 1

    found = bootstrap(lambda index: {"map": float(values[index].mean())}, 2)

    assert found == {}


def test_every_figure_of_a_model_that_abstains_has_an_interval():
    """Groups, coverage, risk and the area under the curve too."""
    logits, truth = overconfident(300)
    model = manifest(Task.FINE_GRAINED, classes=5)
    rules = model.postprocess.model_copy(update={"abstain_threshold": 0.6})
    careful = model.model_copy(update={"postprocess": rules})

    found, intervals, _ = measure(careful, softmax(logits, axis=1), truth)

    assert {"group_accuracy", "coverage", "risk", "aurc"} <= set(found)
    assert set(intervals) == set(found)
    for name in ("group_accuracy", "coverage", "risk", "aurc"):
        assert intervals[name][0] < found[name] < intervals[name][1]


def test_images_of_one_scene_are_drawn_together():
    """Ten photos of a shelf are no ten witnesses: 60 shelves, not 600 photos, count."""
    generator = np.random.default_rng(0)
    scenes = np.arange(600) // 10
    correct = (generator.random(60) < 0.8)[scenes]  # a shelf is right or wrong as one
    scores = np.where(correct[:, None], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1])
    truth = np.zeros(600, int)

    _, alone, _ = measure(manifest(Task.MULTICLASS), scores, truth)
    _, together, _ = measure(manifest(Task.MULTICLASS), scores, truth, scenes=scenes)

    (low, high), (lower, higher) = alone["accuracy"], together["accuracy"]
    assert higher - lower == pytest.approx((high - low) * 10**0.5, rel=0.2)
