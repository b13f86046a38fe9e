"""A load allows as much as another machine rounds, and no more."""

import numpy as np
import pytest

from classifier.manifest import Precision
from training.bundling.draft import tolerance_of


@pytest.mark.parametrize(
    ("precision", "part"),
    [(Precision.FP32, 0.001), (Precision.FP16, 0.02), (Precision.INT8, 0.1)],
)
def test_a_tolerance_is_a_part_of_the_largest_logit(precision: Precision, part: float):
    """Of either sign; small logits are compared as if one were 1."""
    large, small = np.float32([[2, -50], [3, 0]]), np.float32([[0.01, -0.02]])

    assert tolerance_of(precision, large) == pytest.approx(50 * part)
    assert tolerance_of(precision, small) == pytest.approx(part)
