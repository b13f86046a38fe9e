"""Plots of labels that somebody else has named."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.training.evaluation.scored import answers_of
from training.evaluation.answers import per_class
from training.evaluation.evaluate import Evaluation
from training.evaluation.metrics import per_label
from training.reports import plots
from training.reports.plots import confusion_plot, draw_all, precision_recall_plot

Labels = tuple[str, str, str]


def evaluation(labels: Labels, *, several: bool) -> Evaluation:
    """Four images that have one label each, or several."""
    scores, truth = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    rows, thresholds = per_class(answers_of(scores, truth)), None
    if several:
        truth, thresholds = scores > 0, (0.5,) * 3
        rows = per_label(scores, truth, thresholds)
    return Evaluation(
        dataset="prices",
        split="test",
        labels=labels,
        metrics={},
        intervals={},
        rows=rows,
        truth=truth,
        scores=scores,
        thresholds=thresholds,
        names=[],
    )


@pytest.mark.parametrize("several", [False, True])
def test_a_dollar_begins_no_formula(several: bool):
    """What stands between two of them need not be one that can be set."""
    labels = ("$$", "$5% off $", r"$\x$")

    assert draw_all(evaluation(labels, several=several))


@pytest.mark.parametrize(
    ("draw", "several"), [(confusion_plot, False), (precision_recall_plot, True)]
)
@pytest.mark.parametrize("pair", [("$a$", "$ a$"), ("_a", "_b")])
def test_labels_are_drawn_as_they_are_written(
    pair: tuple[str, str], draw: Callable[[Evaluation], bytes], several: bool
):
    """A formula would have no spaces, and a legend no name that begins with `_`."""
    one, other = (draw(evaluation(("x", "y", z), several=several)) for z in pair)

    assert one != other


@pytest.mark.parametrize(
    ("several", "label"), [(False, "share right"), (True, "share positive")]
)
def test_the_reliability_of_yes_scores_is_a_share_of_positives(
    several: bool, label: str, monkeypatch: pytest.MonkeyPatch
):
    """A score of 0.1 for yes is honest if one in ten is positive, not right."""
    written = []
    monkeypatch.setattr(plots, "png", lambda figure: written.append(figure) or b"")

    plots.reliability_diagram(evaluation(("a", "b", "c"), several=several))

    assert written[0].axes[0].get_ylabel() == label


def test_letters_that_no_font_has_are_told_of_in_a_line(caplog):
    """Boxes stand for them; of letters that are there nothing is said."""
    draw_all(evaluation(("été", "Öl", "кот"), several=False))
    assert caplog.messages == []

    # of a private area: nobody's font has it
    draw_all(evaluation(("x\ue123", "y", "z"), several=False))
    assert "no font here has \ue123: boxes" in caplog.text
