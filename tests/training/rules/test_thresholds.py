"""Thresholds: what was asked for is what one gets."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import expit

from training.errors import DataError
from training.evaluation.metrics import f1_by_label
from training.rules import thresholds

SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
TRUTH = np.array([0, 0, 1, 0, 1, 0, 1, 1], bool)


@pytest.mark.parametrize("recall", [0.25, 0.5, 0.75, 1.0])
def test_the_wanted_recall_is_reached_and_not_overshot(recall: float):
    """The highest threshold that finds enough: one step higher finds too few."""
    found = thresholds.by_recall(SCORES, TRUTH, recall=recall)

    reached = (SCORES[TRUTH] >= found).mean()
    assert reached == recall


def test_a_recall_is_not_overshot_by_how_computers_multiply():
    """0.55 * 100 is 55.00000000000001, and 55 positives are enough all the same."""
    scores = np.linspace(0, 1, 100)

    found = thresholds.by_recall(scores, np.ones(100, bool), recall=0.55)

    assert (scores >= found).sum() == 55


def test_a_recall_without_positives_is_an_error():
    """There is nothing to find, so no threshold would be right; it says what would."""
    with pytest.raises(DataError, match="by costs"):
        thresholds.by_recall(SCORES, np.zeros(8, bool), recall=0.9)


@pytest.mark.parametrize(("fp", "fn"), [(1, 1), (1, 10), (10, 1), (1, 1000)])
def test_the_cheapest_threshold_is_found(fp: float, fn: float):
    """No other threshold between two scores costs less."""

    def cost(threshold: float) -> float:
        decided = threshold <= SCORES
        return fp * (decided & ~TRUTH).sum() + fn * (~decided & TRUTH).sum()

    found = thresholds.by_cost(SCORES, TRUTH, false_positive=fp, false_negative=fn)

    tried = [cost(t) for t in np.linspace(0, 1.01, 400)]
    assert cost(found) == min(tried)
    assert 0 <= found <= 1


def test_of_thresholds_that_cost_the_same_the_middle_one_is_taken():
    """Two mistakes are made from 0.25, 0.5 and 0.75 on."""
    found = thresholds.by_cost(SCORES, TRUTH, false_positive=1, false_negative=1)

    assert found == pytest.approx(0.5)


def test_no_image_may_be_a_yes():
    """Where the highest score is a negative's and a false alarm costs too much."""
    found = thresholds.by_cost(
        SCORES, np.roll(TRUTH, -1), false_positive=1000, false_negative=1
    )

    assert SCORES.max() < found <= 1


JUST_UNDER_1 = np.nextafter(np.float32(1), np.float32(0))


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.9, JUST_UNDER_1, 1.0]), st.booleans()),
        min_size=1,
    ),
    st.sampled_from([0.1, 1, 10]),
)
@example([(0.9, True), (1.0, False)], 10)
@example([(0.1, False), (0.9, True), (JUST_UNDER_1, False)], 10)
def test_saturated_scores_get_the_cheapest_threshold_there_is(images, alarm: float):
    """No threshold of 0 to 1 says no to a score of 1; to all others one can."""
    scores, truth = (np.array(column) for column in zip(*images, strict=True))
    scores = scores.astype(np.float32)

    def cost(threshold: float) -> float:
        decided = scores >= np.float64(threshold)
        return alarm * (decided & ~truth).sum() + (~decided & truth).sum()

    found = thresholds.by_cost(scores, truth, false_positive=alarm, false_negative=1)

    assert 0 <= found <= 1
    assert cost(found) == min(cost(t) for t in (0, 0.5, 0.95, JUST_UNDER_1, 1))


def test_thresholds_lie_between_scores():
    """Rounding in another precision must not flip an image it was chosen by."""
    found = thresholds.by_recall(SCORES, TRUTH, recall=0.5)

    assert np.abs(SCORES - found).min() == pytest.approx(0.05)


def multi_label(positives: int) -> tuple[np.ndarray, np.ndarray]:
    """A frequent label whose best threshold is near 0.5, a rare one's near 0.9."""
    generator = np.random.default_rng(0)
    truth = np.zeros((400, 2), bool)
    truth[:200, 0] = True
    truth[:positives, 1] = True
    middle = np.where(truth, [0.75, 0.97], [0.25, 0.8])
    return np.clip(middle + generator.normal(size=middle.shape) * 0.05, 0, 1), truth


def test_each_label_gets_a_threshold_of_its_own():
    """With images enough, a label that scores high has a high threshold."""
    frequent, other = thresholds.per_label_f1(*multi_label(positives=200))

    assert 0.3 < frequent < 0.7
    assert 0.8 < other < 0.97


def test_a_rare_label_is_drawn_to_the_shared_threshold():
    """Three positives are no ground for trusting a threshold fitted to them."""
    _, rare = thresholds.per_label_f1(*multi_label(positives=3))
    _, frequent = thresholds.per_label_f1(*multi_label(positives=200))
    shared = thresholds.by_f1(*(a.ravel() for a in multi_label(positives=3)))

    assert abs(rare - shared) < abs(frequent - shared)


def test_a_fold_without_a_label_has_no_say_in_its_threshold():
    """Each one's threshold is that of the images in the others: of ten images one is
    positive, and four folds of five hold none.
    """
    truth = np.arange(10)[:, None] == 3

    assert thresholds.per_label_f1(np.where(truth, 0.9, 0.7), truth) == [
        pytest.approx(0.8)
    ]


def test_out_of_fold_f1_is_not_better_than_the_fitted_one():
    """Thresholds that have seen the answers flatter themselves."""
    generator = np.random.default_rng(2)
    truth = generator.random((60, 3)) < 0.2
    scores = np.clip(truth * 0.3 + generator.random((60, 3)) * 0.7, 0, 1)
    chosen = np.array([thresholds.by_f1(scores[:, k], truth[:, k]) for k in range(3)])
    decided = scores >= chosen
    hits = (decided & truth).sum(axis=0)
    fitted = np.mean(2 * hits / (decided.sum(axis=0) + truth.sum(axis=0)))

    assert thresholds.out_of_fold_f1(scores, truth) <= fitted


def test_folds_part_no_scene():
    """Thresholds fitted to the neighbors of an image promise more than they keep."""
    generator = np.random.default_rng(1)
    scenes = np.repeat(np.arange(220), 20)
    of_scene = generator.random((220, 10)) < 0.25
    sure = expit(of_scene + generator.normal(size=of_scene.shape))[scenes]
    truth = of_scene[scenes]
    scores = np.clip(sure + generator.normal(size=truth.shape) / 50, 0, 1)
    some = generator.permutation(400)  # of 20 scenes; the others are of the future

    beside = thresholds.out_of_fold_f1(scores[some], truth[some])
    apart = thresholds.out_of_fold_f1(scores[some], truth[some], scenes=scenes[some])

    chosen = thresholds.per_label_f1(scores[some], truth[some], scenes=scenes[some])
    future = np.mean(f1_by_label(scores[400:] >= np.array(chosen), truth[400:]))
    assert beside > future + 0.05
    assert apart < future


def test_one_scene_is_no_ground_for_an_out_of_fold_f1():
    """As one image is none."""
    truth = np.arange(20).reshape(10, 2) % 3 == 0
    one = np.zeros(10, np.int64)

    assert thresholds.out_of_fold_f1(truth * 0.9, truth) is not None
    assert thresholds.out_of_fold_f1(truth * 0.9, truth, scenes=one) is None
    assert len(thresholds.per_label_f1(truth * 0.9, truth, scenes=one)) == 2


def test_one_image_is_no_ground_for_an_out_of_fold_f1():
    """There is no other to take thresholds from; a bundle is made all the same."""
    scores, truth = np.array([[0.9, 0.2]]), np.array([[True, False]])

    assert thresholds.out_of_fold_f1(scores, truth) is None
    assert thresholds.per_label_f1(scores, truth) == [0.55, 0.55]


def test_labels_that_never_occur_have_no_part_in_the_out_of_fold_f1():
    """Two of five labels, each answered right."""
    truth = np.zeros((40, 5), bool)
    truth[::2, 0] = truth[1::2, 1] = True

    assert thresholds.out_of_fold_f1(truth * 0.9 + 0.05, truth) == 1
