"""validation logits → **temperature**: the one number that makes scores honest.

Guo et al. 2017 (arXiv:1706.04599): divide all logits by T, chosen to minimize the
negative log-likelihood on validation images. The order of the labels, and so accuracy,
is unchanged. Fitted on validation only: on train it would learn the network's
overconfidence by heart.
"""

import numpy as np
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import (  # type: ignore[import-untyped]
    log_expit,
    log_softmax,
)

from training.evaluation.metrics import Booleans, Floats, Integers

# Outside these a fit has run away: 0.05 would make any answer certain, 20 none.
COLDEST, HOTTEST = 0.05, 20.0


def softmax_nll(logits: Floats, truth: Integers | Floats, temperature: float) -> float:
    """Mean negative log-likelihood in nats; logits [N, K], truth int [N].

    Or truth float [N, K]: how likely each label is.
    """
    scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    if truth.ndim == 1:
        return float(-scaled[np.arange(len(truth)), truth].mean())
    return float(-(truth * scaled).sum(axis=1).mean())


def sigmoid_nll(logits: Floats, truth: Booleans, temperature: float) -> float:
    """Mean negative log-likelihood in nats of yes/no answers; both [N, K]."""
    scaled = logits.astype(np.float64) / temperature
    return float(-np.where(truth, log_expit(scaled), log_expit(-scaled)).mean())


def fit_temperature(
    logits: Floats, truth: Integers | Floats | Booleans, *, hottest: float = HOTTEST
) -> float:
    """The temperature of least validation NLL, from 0.05 to `hottest`.

    Class indices [N], or how likely each label is, float [N, K], mean softmax, booleans
    [N, K] sigmoid. The NLL is convex in 1/T, so a bounded search over log T finds the
    one minimum, or the coldest that is tried. A set without a single mistake has none
    (colder is always better): there 1.0 is kept, and for logits that are all equal.
    """

    def nll(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        if truth.dtype == np.bool_:
            return sigmoid_nll(logits, truth.astype(bool), temperature)
        likely = truth.astype(int) if truth.ndim == 1 else truth.astype(float)
        return softmax_nll(logits, likely, temperature)

    found = minimize_scalar(
        nll,
        bounds=(np.log(COLDEST), np.log(hottest)),
        method="bounded",
    )
    temperature = float(np.exp(found.x))
    # without mistakes the NLL only falls towards the cold end, where it underflows to 0
    coldest = nll(np.log(COLDEST))
    if coldest <= found.fun:
        # nor does temperature change logits that are all equal
        better = coldest < nll(0.0) and _has_mistakes(logits, truth)
        return COLDEST if better else 1.0
    return round(temperature, 6)


def _has_mistakes(logits: Floats, truth: Integers | Floats | Booleans) -> bool:
    """Whether an answer is wrong, or could be: colder is not better without end."""
    if truth.dtype == np.bool_:
        return bool(((logits > 0) != truth).any())
    answers = logits.argmax(axis=1)
    if truth.ndim == 1:
        return bool((answers != truth).any())
    return bool((truth[np.arange(len(truth)), answers] < 1).any())
