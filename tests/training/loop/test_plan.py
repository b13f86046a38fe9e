"""Schedules, budgets, objectives and views: pure functions and what they promise."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from classifier.manifest import Task
from training.cifar10_table.rows import ROWS, share_out
from training.evaluation.views import average_logits, views
from training.loop.budget import Work, steps_within
from training.objectives.losses import binary_cross_entropy, cross_entropy
from training.objectives.objective import average_precision, build_objective
from training.optimizers import schedule


@given(
    progress=st.floats(0, 1),
    shape=st.sampled_from(["linear", "cosine", "constant"]),
    warmup=st.floats(0, 0.5),
    final=st.floats(0, 1),
)
def test_the_factor_stays_between_its_ends(progress, shape, warmup, final):
    """Never above the peak, never below 0."""
    factor = schedule.factor(progress, shape=shape, warmup=warmup, final=final)

    assert -1e-9 <= factor <= 1 + 1e-9


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_schedule_rises_to_its_peak_and_ends_at_its_final_value(shape):
    """From 0.2 over 1 to 0.1."""
    options = {"shape": shape, "warmup": 0.25, "start": 0.2, "final": 0.1}
    seen = [schedule.factor(p, **options) for p in (0, 0.125, 0.25, 0.625, 1)]

    assert seen == pytest.approx([0.2, 0.6, 1.0, 0.55, 0.1])


def test_images_grow_at_the_moments_that_the_config_names():
    """The last row holds to the end."""
    sizes = ((0.4, 24), (1.0, 32))

    assert [schedule.image_size(p, sizes) for p in (0, 0.39, 0.4, 1)] == [
        24,
        24,
        32,
        32,
    ]


def test_a_budget_pays_for_steps_validation_and_the_last_evaluation():
    """1000 s: 80 s margin, 60 s for 1800 final images, then 1.5 s a step."""
    work = Work(
        steps_per_epoch=100, batch_size=10, validation_images=1500, final_images=1800
    )

    assert steps_within(1000, [(1.0, 1.0)], work) == 573


def test_cheaper_small_images_buy_more_steps():
    """Costs are weighted with how long each size lasts."""
    work = Work(100, 10, 0, 0)

    assert steps_within(100, [(0.5, 0.5), (1.0, 1.5)], work) == 92
    assert steps_within(100, [(0.5, 0.5), (1.0, 0.5)], work) == 184


@given(
    seconds=st.floats(10, 10_000),
    costs=st.lists(st.floats(0.1, 50), min_size=len(ROWS), max_size=len(ROWS)),
)
def test_the_table_never_plans_more_than_its_minutes(seconds, costs):
    """Unless not even an epoch of each fits."""
    by_label = {row.label: cost for row, cost in zip(ROWS, costs, strict=True)}
    epochs = share_out(seconds, by_label)

    planned = sum(epochs[label] * cost for label, cost in by_label.items())
    assert planned <= max(seconds, sum(costs)) + max(costs) * len(ROWS)
    assert all(1 <= epochs[row.label] <= 2 * row.epochs for row in ROWS)


def test_average_precision_is_that_of_scikit_learn():
    """On random scores without ties."""
    rng = np.random.default_rng(0)
    scores, truth = rng.random(200), rng.random(200) < 0.1

    ours = average_precision(torch.tensor(scores), torch.tensor(truth))
    assert ours == pytest.approx(average_precision_score(truth, scores))


@pytest.mark.parametrize(
    ("task", "labels", "logits"),
    [(Task.BINARY, 2, 1), (Task.MULTICLASS, 5, 5), (Task.MULTILABEL, 5, 5)],
)
def test_a_perfect_answer_has_the_best_score_and_nearly_no_loss(task, labels, logits):
    """For every task, with the truth in the loss's own form."""
    objective = build_objective(task, labels=labels)
    if task is Task.MULTILABEL:
        truth = torch.eye(5, dtype=torch.uint8)
        answer = truth.float() * 60 - 30
    else:
        truth = torch.arange(4) % labels
        wanted = torch.nn.functional.one_hot(truth, labels).float() * 60 - 30
        answer = wanted[:, 1:] if task is Task.BINARY else wanted

    assert objective.logits == logits
    assert objective.loss(answer, objective.truth(truth)) < 1e-6
    assert set(objective.score(answer, truth).values()) == {1.0}


def test_smoothing_keeps_a_sure_answer_from_being_free():
    """The more of it, the dearer."""
    logits, truth = torch.tensor([[9.0, -9.0]]), torch.tensor([0])

    assert cross_entropy(label_smoothing=0.1)(logits, truth) > 0.5
    assert (
        binary_cross_entropy(label_smoothing=0.1)(logits, torch.tensor([[1, 0]])) > 0.4
    )


@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_weights_of_the_views_sum_to_one(count):
    """So a constant network answers the same with any number of views."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    weights = [weight for weight, _ in views(pixels, count)]

    def run(batch):
        return np.full((len(batch), 2), 7.0, np.float32)

    assert sum(weights) == pytest.approx(1)
    assert len(weights) == count
    assert average_logits(run, pixels, count=count) == pytest.approx(7)


def test_six_views_are_the_image_its_mirror_and_their_shifts():
    """By a pixel up-left and down-right, the border reflected."""
    pixels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    plain, mirror, down_right, _, up_left, _ = (
        v[0, :, :, 0] for _, v in views(pixels, 6)
    )

    assert np.array_equal(mirror, plain[:, ::-1])
    assert np.array_equal(down_right[1:, 1:], plain[:-1, :-1])
    assert np.array_equal(up_left[:-1, :-1], plain[1:, 1:])
