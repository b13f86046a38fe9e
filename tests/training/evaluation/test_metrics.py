"""Metrics against numbers that can be checked by hand."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as sk

from training.evaluation import metrics


def test_a_perfect_ranking_has_average_precision_one():
    """All positives score above all negatives, wherever the threshold lies."""
    scores, truth = np.array([0.1, 0.2, 0.6, 0.7]), np.array([0, 0, 1, 1], bool)

    found = metrics.binary_metrics(scores, truth, threshold=0.65)

    assert found["pr_auc"] == found["roc_auc"] == 1
    assert found["recall"] == 0.5
    assert found["accuracy"] == 0.75


def test_average_precision_counts_the_precision_at_each_positive():
    """Ranked yes, no, yes: (1/1 + 2/3) / 2."""
    scores, truth = np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1], bool)

    found = metrics.binary_metrics(scores, truth, threshold=0.5)

    assert found["pr_auc"] == pytest.approx((1 + 2 / 3) / 2)


def test_a_rare_label_cannot_hide_behind_accuracy():
    """Always saying no is 90 % accurate, and worthless by every other figure."""
    truth = np.arange(100) < 10

    found = metrics.binary_metrics(np.zeros(100), truth, threshold=0.5)

    assert found["accuracy"] == 0.9
    assert found["balanced_accuracy"] == 0.5
    assert found["mcc"] == found["f1"] == found["recall"] == 0


# Few levels, so that scores are often equal, to each other and to the threshold.
ANSWERS = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


@given(ANSWERS, st.integers(0, 9))
@pytest.mark.filterwarnings("ignore:.*y_pred contains classes:UserWarning")
def test_a_detectors_figures_are_those_of_scikit_learn(answers, threshold):
    """Whatever the scores and the labels, with ties and with constant answers."""
    scores = np.array([score for score, _ in answers], np.float32) / 8
    truth = np.array([label for _, label in answers])
    assume(truth.any() and not truth.all())
    decided = scores >= threshold / 8

    found = metrics.binary_metrics(scores, truth, threshold=threshold / 8)

    assert found["f1"] == pytest.approx(sk.f1_score(truth, decided))
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, scores))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, decided))
    expected = sk.balanced_accuracy_score(truth, decided)
    assert found["balanced_accuracy"] == pytest.approx(expected)


def test_what_is_undefined_is_left_out():
    """Without a positive, in truth or answer, only accuracy is known; 0 is made up."""
    found = metrics.binary_metrics(np.zeros(4), np.zeros(4, bool), threshold=0.5)

    assert found == {"accuracy": 1, "prevalence": 0}


def test_a_detector_that_always_says_no_has_no_precision():
    """It missed all, which is an F1 of 0; of its yes nothing is known."""
    truth = np.arange(10) < 3

    found = metrics.binary_metrics(np.zeros(10), truth, threshold=0.5)

    assert found["f1"] == found["recall"] == 0
    assert "precision" not in found


def test_yes_without_a_positive_is_always_wrong():
    """There is something to be right about, and none of it is."""
    found = metrics.binary_metrics(np.ones(4), np.zeros(4, bool), threshold=0.5)

    assert found["f1"] == found["precision"] == 0
    assert "recall" not in found


def test_map_is_the_mean_over_labels_that_occur():
    """A label without a positive has no average precision to take part with."""
    truth = np.array([[1, 0, 0], [0, 1, 0]], bool)
    scores = np.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.1]])

    ranked = metrics.rankings(scores, truth)
    assert [label.average_precision() for label in ranked] == [1.0, 0.5, None]
    assert metrics.mean_average_precision(ranked, np.arange(2)) == {"map": 0.75}
    assert metrics.mean_average_precision(ranked[2:], np.arange(2)) == {}


# Of each image a score of few levels, whether it is positive, and how often it is drawn
DRAWN = st.lists(
    st.tuples(st.integers(0, 8), st.booleans(), st.integers(0, 3)), min_size=1
)


@given(DRAWN)
def test_the_average_precision_of_a_draw_is_that_of_scikit_learn(images):
    """Images that are drawn twice, or not at all, and scores that are equal."""
    levels, positive, times = (np.array(column) for column in zip(*images, strict=True))
    scores = levels.astype(np.float32) / 8
    index = np.repeat(np.arange(len(times)), times)

    ranking = metrics.Ranking.of(scores, positive)

    for found, drawn in (
        (ranking.average_precision(times), index),
        (ranking.average_precision(), np.arange(len(times))),
    ):
        if not positive[drawn].any():
            assert found is None
            continue
        expected = sk.average_precision_score(positive[drawn], scores[drawn])
        assert found == pytest.approx(expected, abs=1e-12)


def test_a_draw_of_a_multi_label_set_sorts_no_score():
    """With 20 labels of 5,000 images, 200 draws took a quarter of a minute."""
    scores, truth = np.random.default_rng(0).random((50, 3)), np.eye(50, 3) > 0
    ranked = metrics.rankings(scores, truth)
    index = np.random.default_rng(1).integers(50, size=50)

    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(np, "argsort")
        drawn = metrics.mean_average_precision(ranked, index)

    again = metrics.rankings(scores[index], truth[index])
    expected = metrics.mean_average_precision(again, np.arange(50))
    assert drawn["map"] == pytest.approx(expected["map"])


def test_micro_f1_counts_decisions_and_macro_f1_labels():
    """One frequent label done well weighs more in micro than in macro."""
    truth = np.array([[1, 0], [1, 0], [1, 1]], bool)
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])

    found = metrics.multilabel_metrics(scores, truth, thresholds=(0.5, 0.5))

    assert found["micro_f1"] == pytest.approx(6 / 7)
    assert found["macro_f1"] == 0.5
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx(5 / 6)  # of single answers


def test_labels_that_never_occur_have_no_part_in_macro_f1():
    """Perfect answers are perfect by every figure, though three labels are absent."""
    truth = np.zeros((40, 5), bool)
    truth[:20, 0] = truth[20:, 1] = True

    found = metrics.multilabel_metrics(truth * 0.9, truth, thresholds=(0.5,) * 5)

    assert found["macro_f1"] == found["micro_f1"] == 1


def test_a_label_that_was_missed_or_invented_counts_as_zero():
    """The first is right, the second missed, the third invented, the fourth absent."""
    truth = np.array([[1, 1, 0, 0]] * 4, bool)
    scores = np.array([[0.9, 0.1, 0.9, 0.1]] * 4)

    found = metrics.multilabel_metrics(scores, truth, thresholds=(0.5,) * 4)

    assert found["macro_f1"] == pytest.approx(1 / 3)
    assert found["macro_f1"] == sk.f1_score(
        truth, scores >= 0.5, average="macro", zero_division=np.nan
    )


def test_without_any_label_there_is_no_f1():
    """Nothing was there and nothing was answered: that is all right, and no F1."""
    found = metrics.multilabel_metrics(
        np.zeros((4, 2)), np.zeros((4, 2), bool), thresholds=(0.5, 0.5)
    )

    assert found == {"exact_match": 1, "accuracy": 1}


def test_a_score_just_below_its_threshold_is_a_no():
    """As in the service: the threshold is not rounded to the float32 of the scores."""
    scores = np.full(4, 0.7, np.float32)
    above = float(scores[0]) + 1e-9

    found = metrics.binary_metrics(scores, np.ones(4, bool), threshold=above)

    assert found["recall"] == 0


def test_confusable_pairs_join_both_directions():
    """0 taken for 1 twice and 1 for 0 once are one pair of three mistakes."""
    predicted, truth = np.array([1, 1, 0, 0, 2, 1]), np.array([0, 0, 0, 1, 2, 2])

    pairs = metrics.confusable_pairs(np.eye(3)[predicted], truth)

    worst = pairs[0]
    assert (worst.a, worst.b, worst.a_as_b, worst.b_as_a) == (0, 1, 2, 1)
    assert worst.share == pytest.approx(3 / 4)
    assert [(p.a, p.b) for p in pairs] == [(0, 1), (1, 2)]


def test_of_pairs_as_often_confused_the_rarer_classes_come_first():
    """One of two images weighs more than one of four; the list has an end."""
    truth, predicted = np.array([0, 1, 1, 1, 2, 3]), np.array([1, 1, 1, 1, 3, 3])

    pairs = metrics.confusable_pairs(np.eye(4)[predicted], truth)

    assert [(p.a, p.b, p.share) for p in pairs] == [(2, 3, 1 / 2), (0, 1, 1 / 4)]
    assert metrics.confusable_pairs(np.eye(4)[predicted], truth, limit=1) == pairs[:1]


def test_rows_of_the_confusion_matrix_are_the_truth():
    """A class that never occurs keeps its empty row."""
    found = metrics.confusion_matrix(np.array([1, 1]), np.array([0, 1]), classes=3)

    assert found.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
