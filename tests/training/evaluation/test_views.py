"""Views: the same images mirrored and shifted, and their mean."""

import numpy as np
import pytest

from training.evaluation.views import average_logits, views


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
