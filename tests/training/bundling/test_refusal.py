"""Where int8 does not pass, the card says who would have paid for it."""

import numpy as np

from classifier.manifest import Gate
from training.bundling.bundling import refusal
from training.quantization.gate import Gated

GATE = Gate(
    passed=False,
    dataset="x",
    n=100,
    accuracy_drop=0.03,
    agreement=0.9,
    reason="kept to fp32 after 4 attempts",
)


def test_a_refused_int8_graph_names_the_classes_it_would_hurt():
    """The worst first; who gains, or does not occur, is not named."""
    change = np.array([-0.02, 0.01, -0.12, np.nan])

    line = refusal(Gated(None, GATE, change), ["cat", "dog", "bird", "eel"])

    assert line == (
        "No int8 graph: kept to fp32 after 4 attempts. "
        "By class, accuracy would change: `bird` -12.0 points, `cat` -2.0 points."
    )


def test_of_many_classes_the_ten_that_lose_most_are_named():
    """A thousand would be no line."""
    change = np.linspace(-0.5, -0.01, 12)

    line = refusal(Gated(None, GATE, change), [f"c{k}" for k in range(12)])

    assert [f"`c{k}` " in line for k in range(12)] == [True] * 10 + [False] * 2


def test_agreement_alone_can_be_what_failed():
    """Then there is no class to name."""
    line = refusal(Gated(None, GATE, np.zeros(2)), ["no", "yes"])

    assert line == "No int8 graph: kept to fp32 after 4 attempts."
