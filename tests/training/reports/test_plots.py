"""Plots of labels that somebody else has named."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

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


def drawn(
    draw: Callable[[Evaluation], bytes],
    found: Evaluation,
    monkeypatch: pytest.MonkeyPatch,
) -> Figure:
    """The figure that would become a picture."""
    written: list[Figure] = []
    monkeypatch.setattr(plots, "png", lambda figure: written.append(figure) or b"")
    draw(found)
    return written[0]


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
    figure = drawn(
        plots.reliability_diagram,
        evaluation(("a", "b", "c"), several=several),
        monkeypatch,
    )

    assert figure.axes[0].get_ylabel() == label


def test_letters_that_no_font_has_are_told_of_in_a_line(caplog):
    """Boxes stand for them; of letters that are there nothing is said."""
    draw_all(evaluation(("été", "Öl", "кот"), several=False))
    assert caplog.messages == []

    # of a private area: nobody's font has it
    found = evaluation(("x\ue123", "y", "z"), several=False)
    draw_all(replace(found, negative="\ue124"))
    assert "no font here has \ue123 \ue124: boxes" in caplog.text


def test_a_confusion_matrix_has_the_truth_in_its_rows(monkeypatch: pytest.MonkeyPatch):
    """One of two b was called a. A cell is as dark as its share of the row, and its
    number is light where it is dark.
    """
    figure = drawn(
        confusion_plot, evaluation(("a", "b", "c"), several=False), monkeypatch
    )

    (axes,) = figure.axes
    numbers = {t.get_position(): (t.get_text(), t.get_color()) for t in axes.texts}
    dark, light = ("1", "white"), ("1", plots.INK)
    # across, down: b as a stands in the first column of the second row
    assert numbers == {(0, 0): dark, (0, 1): light, (1, 1): light, (2, 2): dark}
    assert axes.images[0].get_array().tolist() == [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "truth")


def test_a_matrix_of_yes_and_no_begins_with_no(monkeypatch: pytest.MonkeyPatch):
    """As its numbers do: 0 and 1."""
    truth = np.array([True, False, False])
    found = replace(
        evaluation(("a", "b", "c"), several=True),
        labels=("red",),
        truth=truth,
        scores=np.array([[0.9], [0.8], [0.1]]),
        thresholds=(0.5,),
    )

    (axes,) = drawn(confusion_plot, found, monkeypatch).axes

    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["not red", "red"]
    assert axes.images[0].get_array().tolist() == [[0.5, 0.5], [0, 1]]


def test_bars_of_reliability_are_shares_over_their_scores(
    monkeypatch: pytest.MonkeyPatch,
):
    """Four scores of 1, of which three are right, in the last of 15 bins."""
    found = evaluation(("a", "b", "c"), several=False)

    share, count = drawn(plots.reliability_diagram, found, monkeypatch).axes

    for axes, height in ((share, 0.75), (count, 4)):
        (bar,) = axes.patches
        corner = (bar.get_x(), bar.get_width(), bar.get_height())
        assert corner == pytest.approx((14 / 15, 1 / 15, height))


def test_a_curve_of_precision_has_the_point_of_its_own_threshold(
    monkeypatch: pytest.MonkeyPatch,
):
    """A label without a positive has no curve; precision holds from a recall down."""
    truth = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool)
    scores = np.array([[0.9, 0, 0.4], [0.7, 0, 0.9], [0.8, 0, 0.2], [0.1, 0, 0.3]])
    thresholds = (0.6, 0.5, 0.5)
    found = replace(
        evaluation(("a", "b", "c"), several=True),
        truth=truth,
        scores=scores,
        thresholds=thresholds,
        rows=per_label(scores, truth, thresholds),
    )

    (axes,) = drawn(precision_recall_plot, found, monkeypatch).axes

    first, its_point, last, other_point = axes.lines
    assert first.get_xdata().tolist() == [1, 1, 0.5, 0.5, 0]
    assert first.get_ydata().tolist() == pytest.approx([0.5, 2 / 3, 0.5, 1, 1])
    assert first.get_drawstyle() == last.get_drawstyle() == "steps-post"
    assert its_point.get_xydata().tolist() == [pytest.approx([1, 2 / 3])]
    assert other_point.get_xydata().tolist() == [[0.5, 1]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("recall", "precision")
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["a 0.833", "c 0.750"]


def test_the_curve_of_risk_goes_up_with_coverage(monkeypatch: pytest.MonkeyPatch):
    """The surest two are right, of three one is wrong, of four two."""
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    found = replace(
        evaluation(("a", "b", "c"), several=False),
        scores=scores,
        truth=np.array([0, 0, 0, 1]),
    )

    (axes,) = drawn(plots.risk_coverage_plot, found, monkeypatch).axes

    (curve,) = axes.lines
    assert curve.get_xdata().tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.get_ydata().tolist() == pytest.approx([0, 0, 1 / 3, 0.5])
    assert axes.get_xlabel().startswith("coverage")
    assert axes.get_title() == "area under the curve 0.2083"


def test_without_a_mistake_the_risk_is_drawn_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
):
    """At the bottom, over all coverages; not magnified out of nothing."""
    found = evaluation(("a", "b", "c"), several=False)
    found = replace(found, truth=found.scores.argmax(1))

    (axes,) = drawn(plots.risk_coverage_plot, found, monkeypatch).axes

    assert axes.get_xlim() == (0, 1)
    assert axes.get_ylim() == (0, 0.01)
    (curve,) = axes.lines
    assert curve.get_marker() == "."


def test_of_many_labels_the_worst_curves_have_names(monkeypatch: pytest.MonkeyPatch):
    """There are ten colors; the others are gray behind them."""
    generator = np.random.default_rng(0)
    truth = generator.random((50, 12)) < 0.5
    scores = np.where(truth, 0.6, 0.4) + generator.normal(0, 0.02, truth.shape)
    scores[:, :10] = generator.random((50, 10))  # two are told without a mistake
    names, thresholds = tuple(f"label {k}" for k in range(12)), (0.5,) * 12
    found = replace(
        evaluation(("a", "b", "c"), several=True),
        labels=names,
        truth=truth,
        scores=scores,
        thresholds=thresholds,
        rows=per_label(scores, truth, thresholds),
    )

    (axes,) = drawn(precision_recall_plot, found, monkeypatch).axes

    legend = [text.get_text()[:7] for text in axes.get_legend().get_texts()]
    assert legend == [f"label {k}" for k in range(10)]
    assert axes.get_legend().get_title().get_text().endswith("lowest of 12")
    assert [line.get_color() for line in axes.lines].count(plots.GRAY) == 2


def test_a_long_name_leaves_room_for_the_matrix(monkeypatch: pytest.MonkeyPatch):
    """A label may have two hundred letters."""
    names = ("a" * 200, "b" * plots.MOST_LETTERS, "c")
    found = evaluation(names, several=False)

    (axes,) = drawn(confusion_plot, found, monkeypatch).axes

    shown = ["a" * 29 + "…", "b" * 30, "c"]
    assert [text.get_text() for text in axes.get_xticklabels()] == shown
    assert [text.get_text() for text in axes.get_yticklabels()] == shown


@pytest.mark.parametrize(("classes", "is_drawn"), [(40, True), (41, False)])
def test_a_matrix_that_nobody_could_read_is_not_drawn(classes: int, is_drawn: bool):
    """Of the others each task has its own plots."""
    found = evaluation(("a", "b", "c"), several=False)
    many = replace(found, labels=tuple(map(str, range(classes))))

    names = [name for name, _ in plots._plots_for(many)]

    assert names == ["reliability.png", "risk-coverage.png"] + is_drawn * [
        "confusion.png"
    ]
