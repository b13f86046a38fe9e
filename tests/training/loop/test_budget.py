"""A time budget pays for everything that a run does."""

from training.loop.budget import Work, steps_within


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
