"""What is known of each image is enough for every figure of softmax scores."""

import numpy as np
import pytest

from tests.training.evaluation.scored import answers_of
from training.evaluation.answers import multiclass_metrics, per_class
from training.evaluation.reliability import softmax_reliability


def scored(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 [N, K] in steps of a tenth, so that many are equal, and truth."""
    generator = np.random.default_rng(0)
    scores = (generator.integers(10, size=(n, k)) / 10).astype(np.float32)
    return scores, generator.integers(k, size=n)


def test_the_vectors_give_what_the_whole_scores_give():
    """By the definitions, of images drawn with repeats: sorted, squared, summed."""
    all_scores, all_truth = scored(500, 12)
    all_truth[all_truth == 3] = 4  # a class that no image has
    index = np.random.default_rng(1).integers(500, size=500)
    scores, truth = all_scores[index], all_truth[index]

    drawn = answers_of(all_scores, all_truth).select(index)
    found = multiclass_metrics(drawn) | softmax_reliability(drawn)

    listed = np.argsort(-scores, axis=1, kind="stable")
    hit = listed == truth[:, None]
    recalls = [hit[truth == k, 0].mean() for k in np.unique(truth)]
    own = scores[np.arange(500), truth].astype(float)
    assert found["accuracy"] == hit[:, 0].mean()
    assert found["top_5"] == hit[:, :5].any(axis=1).mean()
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["nll"] == pytest.approx(-np.log(np.maximum(own, 1e-12)).mean())
    squared = ((scores - np.eye(12)[truth]) ** 2).sum(axis=1)
    assert found["brier"] == pytest.approx(squared.mean())
    assert np.array_equal(drawn.predicted, listed[:, 0])
    assert np.array_equal(drawn.score, scores.max(axis=1))


def test_the_rank_is_where_the_service_lists_the_truth():
    """The rank counts, the service sorts; equal scores go by class index in both."""
    scores, truth = scored(200, 30)

    listed = np.argsort(-scores, axis=1, kind="stable")
    expected = (listed == truth[:, None]).argmax(axis=1)
    assert np.array_equal(answers_of(scores, truth).rank, expected)


def test_abstaining_tells_coverage_and_risk():
    """Three of four are answered, one of those wrongly; from 0.95 on none is."""
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    answers = answers_of(scores, np.array([0, 1, 1, 0]))

    found = multiclass_metrics(answers, abstain_threshold=0.65)
    silent = multiclass_metrics(answers, abstain_threshold=0.95)

    assert (found["coverage"], found["risk"]) == (0.75, pytest.approx(1 / 3))
    assert silent["coverage"] == 0
    assert "risk" not in silent


def test_top_k_breaks_ties_by_index():
    """Two labels with the same score: the service lists the lower index first."""
    scores, truth = np.array([[0.5, 0.5, 0.0]]), np.array([1])

    assert answers_of(scores, truth).rank.tolist() == [1]


def test_top_5_appears_only_where_it_says_something():
    """With five classes every answer is among the best five."""
    truth = np.arange(5)

    assert "top_5" not in multiclass_metrics(answers_of(np.eye(5), truth))
    assert multiclass_metrics(answers_of(np.eye(6)[:5], truth))["top_5"] == 1


def test_the_row_of_a_class_has_only_what_is_known():
    """Class 1 is never predicted, class 2 never there, class 3 neither."""
    rows = per_class(answers_of(np.eye(4)[[0, 2]], np.array([0, 1])))

    known = [(row.precision, row.recall, row.f1) for row in rows]
    assert known == [(1, 1, 1), (None, 0, 0), (0, None, 0), (None, None, None)]


def test_a_group_wins_by_the_sum_of_its_labels():
    """Two apples at 0.3 each beat a pear at 0.4: that it is an apple is known. The
    labels of a group may be apart.
    """
    scores, truth = np.array([[0.3, 0.0, 0.3, 0.4]]), np.array([2])

    found = answers_of(scores, truth, groups=["apple", "pear", "apple", "pear"])

    assert found.group_correct.tolist() == [True]
    assert multiclass_metrics(found)["group_accuracy"] == 1


def test_groups_are_summed_as_they_are_served():
    """In float64 and in the order of the labels: equal sums stay equal."""
    generator = np.random.default_rng(0)
    groups = ["a", "b", "a", "b", "a", "b", "a", "b"]
    row = generator.random(4).astype(np.float32)
    scores = np.empty((50, 8), np.float32)
    for each in scores:  # both groups have the same scores, each in its own order
        each[::2], each[1::2] = generator.permutation(row), generator.permutation(row)
    served = [np.bincount([0, 1] * 4, weights=each).argmax() for each in scores]

    found = answers_of(scores, np.array(served), groups=groups)

    assert found.group_correct.all()
