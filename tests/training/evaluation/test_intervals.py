"""Intervals hold what they should, and are there where they are needed."""

import json
import logging
from functools import partial

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from scipy.stats import binom, norm

from classifier.manifest import Manifest, Task
from tests.synthetic import manifest_fields
from tests.training.evaluation.logits import overconfident
from tests.training.evaluation.scored import answers_of, reliability_of
from training.evaluation.figures import measure
from training.evaluation.intervals import (
    bootstrap,
    clopper_pearson,
    delong,
    of_yes_and_no,
    without_bias,
    without_noise,
    without_the_unseen,
)
from training.evaluation.metrics import (
    f1_by_label,
    mean_average_precision,
    rankings,
    roc_auc,
)
from training.evaluation.reliability import (
    GAPS,
    HONESTY,
    softmax_reliability,
)


def test_bootstrap_intervals_hold_the_value_and_shrink_with_images():
    """Ten times the images, about a third of the width."""

    def widths(n: int) -> float:
        logits, truth = overconfident(n)
        answers = answers_of(softmax(logits, axis=1), truth)
        low, high = bootstrap(
            lambda index: softmax_reliability(answers.select(index)), n, rounds=50
        )["nll"]
        assert low < softmax_reliability(answers)["nll"] < high
        return high - low

    assert widths(3000) < widths(300) / 2


def test_bootstrap_intervals_of_a_mean_are_those_of_its_standard_error():
    """Of 95 % they reach 1.96 errors to both sides; of 90 % it would be 1.64."""
    values = np.random.default_rng(0).exponential(size=400)

    intervals = bootstrap(
        lambda index: {"mean": float(values[index].mean())}, 400, rounds=2000
    )

    error = values.std() / 400**0.5
    expected = values.mean() + norm.ppf([0.025, 0.975]) * error
    assert intervals["mean"] == pytest.approx(tuple(expected), abs=0.2 * error)


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
        manifest(Task.MULTICLASS), 9 * np.eye(3)[np.arange(60) % 3], np.arange(60) % 3
    )

    assert found["accuracy"] == 1
    assert intervals["accuracy"] == (pytest.approx(0.025 ** (1 / 60)), 1)
    assert all(low < high for low, high in intervals.values())


@pytest.mark.parametrize("task", [Task.MULTICLASS, Task.BINARY, Task.MULTILABEL])
def test_mistakes_that_few_images_show_leave_the_honesty_of_scores_open(task: Task):
    """Of 200 right answers each draw says the NLL of right answers, which is not the
    NLL: the rare mistake would be most of it. Three mistakes are seen by most draws.
    """
    scores = np.random.default_rng(0).uniform(0.97, 0.999, 200)
    for mistakes in range(5):
        right = np.arange(200) >= mistakes
        own = np.where(right, scores, 1 - scores)  # of the truth, of two labels
        columns, truth = np.column_stack([own, 1 - own]), np.zeros(200, int)
        if task is Task.BINARY:
            columns, truth = columns[:, :1], np.ones(200, bool)
        elif task is Task.MULTILABEL:
            columns[:, 1] = 1 - scores  # right throughout: one wrong label is enough
            truth = np.tile([True, False], (200, 1))

        found, intervals, _ = measure(manifest(task, classes=2), logit(columns), truth)

        assert set(HONESTY) <= set(found)
        assert ("nll" in intervals) == (mistakes >= 3)
        assert (set(HONESTY) <= set(intervals)) == (mistakes >= 3)
        assert "accuracy" in intervals or task is Task.MULTILABEL


def test_mistakes_of_one_scene_are_seen_once():
    """Four in one series say no more of other scenes than a single one."""
    mistakes, scenes = np.arange(40) < 4, np.arange(40) // 4
    ends = {"nll": (0.1, 0.2), "aurc": (0.0, 0.1)}

    assert without_the_unseen(ends, mistakes) == ends
    assert without_the_unseen(ends, mistakes, scenes) == {"aurc": (0.0, 0.1)}


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

    found, intervals, _ = measure(careful, logits, truth)

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

    logits, model = np.log(scores), manifest(Task.FINE_GRAINED)
    _, alone, _ = measure(model, logits, truth)
    _, together, _ = measure(model, logits, truth, scenes=scenes)

    (low, high), (lower, higher) = alone["accuracy"], together["accuracy"]
    assert higher - lower == pytest.approx((high - low) * 10**0.5, rel=0.2)
    # red and green are of two groups, so that both figures are of the same answers
    assert together["group_accuracy"] == together["accuracy"]


def calibration(n: int, *, gap: float, times: int = 10) -> list[tuple[float, ...]]:
    """Lower end, figure, upper end of both errors of scores [N] too high by `gap`."""
    generator = np.random.default_rng(0)
    triples = []
    for _ in range(times):
        score = generator.uniform(0.3, 1, n)
        truth = generator.random(n) < score - gap

        def statistics(index: np.ndarray, score=score, truth=truth) -> dict[str, float]:
            return reliability_of(score[index], truth[index])

        found, ends = statistics(np.arange(n)), bootstrap(statistics, n, rounds=50)
        triples += [(ends[name][0], found[name], ends[name][1]) for name in GAPS]
    return triples


@pytest.mark.parametrize("n", [60, 300])
def test_honest_scores_may_be_honest_by_the_interval_of_their_error(n: int):
    """Noise alone makes an error. Percentiles never came near 0, and often left out
    the figure itself, because each draw adds as much noise again.
    """
    triples = calibration(n, gap=0)

    assert all(low <= found <= high for low, found, high in triples)
    assert np.mean([low < 0.01 for low, _, _ in triples]) > 0.7


def test_scores_that_are_too_high_are_not_honest_by_the_interval_of_their_error():
    """With a thousand images a gap of 0.2 is no noise; most intervals hold it."""
    triples = calibration(1000, gap=0.2)

    assert all(0.1 < low <= found <= high for low, found, high in triples)
    assert np.mean([low < 0.2 < high for low, _, high in triples]) > 0.8


def test_the_interval_of_map_holds_the_truth_where_labels_are_rare():
    """Of 40 labels with ten positives each, what is found is higher than what is true,
    and a draw's higher still. Percentiles alone hold the truth in one case of ten.
    """
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(20):
        truth = generator.random((500, 40)) < 0.02
        scores = expit(generator.normal(size=truth.shape) + 2 * truth)
        statistics = partial(mean_average_precision, rankings(scores, truth))
        low, high = bootstrap(statistics, 500, rounds=50)["map"]
        assert low <= statistics(np.arange(500))["map"] <= high
        held += low <= 0.374 <= high  # of two million images

    assert held >= 15


def test_the_interval_of_map_ends_at_0_and_1_and_holds_the_figure():
    """Whatever the draws were."""
    assert without_bias(0.3, [0.5, 0.7]) == (0, pytest.approx(0.3))
    assert without_bias(0.9, [0.5, 0.9]) == (pytest.approx(0.9), 1)


def test_the_interval_of_a_calibration_error_ends_at_0_and_1():
    """Whatever the draws were."""
    assert without_noise(0.1031, 0.1551, 0.2859) == (0, 0.1031)
    assert without_noise(0.9, 0.5, 0.95) == (pytest.approx(0.8471, abs=1e-4), 1)


def test_an_error_of_0_has_no_interval():
    """Eight of ten answers at 0.8 are right, by chance: 0 to 0 would say it is sure."""
    score, truth = np.full(10, 0.8), np.arange(10) < 8

    ends = bootstrap(lambda index: reliability_of(score[index], truth[index]), 10)

    assert "ece" not in ends


def test_the_interval_of_macro_f1_holds_the_truth_where_labels_are_rare():
    """The percentiles of draws lie below it: positives get fewer still."""
    generator = np.random.default_rng(0)
    rate, found, runs = 0.05, 0.9, 40

    def labelled(images: int) -> tuple[np.ndarray, np.ndarray]:
        truth = generator.random((images, 20)) < rate
        decided = np.where(
            truth,
            generator.random(truth.shape) < found,
            generator.random(truth.shape) < 0.01,
        )
        return decided, truth

    decided, truth = labelled(200_000)
    true = float(np.mean(f1_by_label(decided, truth)))
    held = 0
    for _ in range(runs):
        decided, truth = labelled(100)
        low, high = bootstrap(
            lambda i, d=decided, t=truth: {
                "macro_f1": float(np.mean(f1_by_label(d[i], t[i])))
            },
            100,
            rounds=100,
        )["macro_f1"]
        held += low <= true <= high

    assert held >= 0.85 * runs


def detected(generator: np.random.Generator, n: int, *, rate: float, apart: float):
    """Scores of a detector and their truth, [N] each, with both sides."""
    truth = np.arange(n) < max(2, round(rate * n))
    return generator.normal(apart * truth, 1.0), truth


def test_the_interval_of_roc_auc_holds_the_truth_where_positives_are_rare():
    """That of draws held it in three of four cases."""
    generator = np.random.default_rng(0)
    true, runs = float(norm.cdf(3 / 2**0.5)), 200
    intervals = [
        of_yes_and_no(scores, scores > 1.5, truth)["roc_auc"]
        for scores, truth in (
            detected(generator, 200, rate=0.1, apart=3.0) for _ in range(runs)
        )
        if roc_auc(scores, truth) < 1
    ]

    held = sum(low <= true <= high for low, high in intervals)
    assert held >= 0.9 * len(intervals) > 0.8 * runs
    assert all(0 < low < high < 1 for low, high in intervals)


def test_the_variance_of_roc_auc_is_that_of_delong():
    """By its definition, over all pairs, with a tie."""
    positives, negatives = np.array([0.9, 0.8, 0.4]), np.array([0.1, 0.4, 0.5, 0.2])
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    area = wins.mean()
    error = (wins.mean(1).var(ddof=1) / 3 + wins.mean(0).var(ddof=1) / 4) ** 0.5
    reach = 1.959964 * error / (area * (1 - area))

    ends = delong(positives, negatives)

    assert ends == pytest.approx(tuple(expit(logit(area) + np.array([-1, 1]) * reach)))
    assert delong(positives + 1, negatives) is None  # no pair is in the wrong order
    assert delong(positives[:1], negatives) is None


def test_balanced_accuracy_is_not_certain_where_no_positive_was_missed():
    """Of 20 in 20 the exact interval begins at 0.83, whatever is drawn."""
    truth = np.arange(200) < 20
    decided = truth.copy()
    decided[50] = True  # a false alarm
    scores = decided.astype(float)

    low, high = of_yes_and_no(scores, decided, truth)["balanced_accuracy"]

    missed, alarmed = (clopper_pearson(*pair)[0] for pair in ((20, 20), (179, 180)))
    below = np.hypot(1 - missed, 179 / 180 - alarmed) / 2
    assert low == pytest.approx((1 + 179 / 180) / 2 - below)
    assert high <= 1
    assert of_yes_and_no(scores[:20], decided[:20], truth[:20]) == {}


def test_yes_and_no_have_these_intervals_where_images_are_independent():
    """Scenes are drawn anew instead."""
    scores, truth = detected(np.random.default_rng(0), 100, rate=0.3, apart=2.0)
    logits = scores[:, None] - 1.0
    binary = manifest(Task.BINARY)

    alone = measure(binary, logits, truth)[1]
    in_scenes = measure(binary, logits, truth, scenes=np.arange(100) // 2)[1]

    closed = of_yes_and_no(scores, logits[:, 0] >= 0, truth)
    assert alone["roc_auc"] == pytest.approx(closed["roc_auc"])
    assert {"roc_auc", "balanced_accuracy"} <= in_scenes.keys()
    assert in_scenes["roc_auc"] != pytest.approx(closed["roc_auc"])


def test_few_scenes_tell_no_interval():
    """Drawn anew, five of them held the truth in 79 of 100 cases."""
    values = np.arange(100.0)

    def mean(index: np.ndarray) -> dict[str, float]:
        return {"mean": float(values[index].mean())}

    assert bootstrap(mean, 100, scenes=np.arange(100) % 19) == {}
    assert bootstrap(mean, 100, scenes=np.arange(100) % 20).keys() == {"mean"}
