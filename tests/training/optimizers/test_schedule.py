"""Schedules: pure functions of the progress, and what they promise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    """From 0.2 over 1 to 0.1, where it stays."""
    options = {"shape": shape, "warmup": 0.25, "start": 0.2, "final": 0.1}
    seen = [schedule.factor(p, **options) for p in (0, 0.125, 0.25, 0.625, 1, 1.5)]

    assert seen == pytest.approx([0.2, 0.6, 1.0, 0.55, 0.1, 0.1])


def test_the_cosine_is_one():
    """After a quarter of the fall it is where the cosine of an eighth of a turn is."""
    seen = [schedule.factor(p, shape="cosine") for p in (0.25, 0.75)]

    assert seen == pytest.approx([(1 + 0.5**0.5) / 2, (1 - 0.5**0.5) / 2])


def test_images_grow_at_the_moments_that_the_config_names():
    """The last row holds to the end."""
    sizes = ((0.4, 24), (1.0, 32))

    assert [schedule.image_size(p, sizes) for p in (0, 0.39, 0.4, 1)] == [
        24,
        24,
        32,
        32,
    ]
