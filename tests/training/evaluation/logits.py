"""Logits whose honesty is known."""

import numpy as np
from scipy.special import softmax


def overconfident(n: int = 4000, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 5] that are `factor` times what the truth was drawn from."""
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(n, 5)) * 1.5
    cumulated = softmax(honest, axis=1).cumsum(axis=1)
    truth = (generator.random((n, 1)) > cumulated).sum(axis=1).clip(max=4)
    return (honest * factor).astype(np.float32), truth
