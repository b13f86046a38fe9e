"""evaluation → **pictures**: PNG bytes for cards and reports, no display needed."""

import io
import warnings
from collections.abc import Callable, Iterator

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from sklearn.metrics import (  # type: ignore[import-untyped]
    average_precision_score,
    precision_recall_curve,
)

from training.evaluation.evaluate import Evaluation
from training.evaluation.metrics import confusion_matrix
from training.evaluation.reliability import equal_width_bins
from training.evaluation.selective import risk_coverage
from training.reports.fonts import families, warn_of_missing

Draw = Callable[[Evaluation], bytes]

DOTS_PER_INCH = 100
INK, ACCENT, GRAY = "#1f3b57", "#c8553d", "#9aa5b1"
MOST_CLASSES = 40  # a larger confusion matrix cannot be read
MOST_CURVES = 10  # colors that can be told apart; of more labels the worst have one
MOST_LETTERS = 30  # of a name beside a plot, or there would be no room for the plot


def png(figure: Figure) -> bytes:
    """A figure as a PNG without a date in it, so that equal figures are equal bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"savefig.bbox": "tight"}), warnings.catch_warnings():
        # `warn_of_missing` has said so, once and in plain words
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        figure.savefig(
            buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None}
        )
    return buffer.getvalue()


def draw_all(evaluation: Evaluation) -> dict[str, bytes]:
    """Every plot that makes sense for the task, by file name."""
    warn_of_missing((*evaluation.labels, evaluation.negative or ""))
    with mpl.rc_context({"font.family": families()}):
        return {name: draw(evaluation) for name, draw in _plots_for(evaluation)}


def _plots_for(evaluation: Evaluation) -> Iterator[tuple[str, Draw]]:
    yield "reliability.png", reliability_diagram
    if evaluation.thresholds is None:
        yield "risk-coverage.png", risk_coverage_plot
        if len(evaluation.labels) <= MOST_CLASSES:
            yield "confusion.png", confusion_plot
        return
    if evaluation.truth.any():  # without a positive there is no recall
        yield "precision-recall.png", precision_recall_plot
    if evaluation.truth.ndim == 1:
        yield "confusion.png", confusion_plot


def cut(name: str) -> str:
    """As much of a label as has room beside a plot."""
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def confusion_plot(evaluation: Evaluation) -> bytes:
    """Rows are the truth, columns the answer; a color is a share of its row."""
    names = evaluation.labels
    if len(names) == 1:
        names = (evaluation.no(0), names[0])
    counts = confusion_matrix(
        evaluation.predicted.astype(int),
        evaluation.truth.astype(int),
        classes=len(names),
    )
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = 2.2 + 0.42 * len(names)
    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(names))
    names = tuple(map(cut, names))
    # A label is no formula, whatever dollars it has.
    axes.set_xticks(ticks, names, rotation=90, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    for row, column in np.argwhere(counts):
        dark = shares[row, column] > 0.5  # noqa: PLR2004 - half of the color scale
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else INK,
        )
    return png(figure)


def reliability_diagram(evaluation: Evaluation) -> bytes:
    """Share of right answers against score; on the diagonal it means what it says.

    Of a sigmoid it is the share of positives against the score for yes.
    """
    bins = equal_width_bins(*evaluation.answer_scores)
    figure = Figure(figsize=(4, 4))
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    widths = [b.high - b.low for b in bins]
    lows = [b.low for b in bins]
    top.bar(lows, [b.share_correct for b in bins], widths, align="edge", color=INK)
    top.plot([0, 1], [0, 1], color=ACCENT, linewidth=1)
    top.set_ylabel("share right" if evaluation.thresholds is None else "share positive")
    bottom.bar(lows, [b.n for b in bins], widths, align="edge", color=GRAY)
    bottom.set_yscale("log")
    bottom.set_ylim(bottom=0.5)  # a bar of one answer has a height
    bottom.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    bottom.yaxis.set_minor_formatter(NullFormatter())
    bottom.set_ylabel("answers")
    bottom.set_xlabel("score")
    return png(figure)


def precision_recall_plot(evaluation: Evaluation) -> bytes:
    """A curve a label, its average precision, and the point of the threshold.

    Of more labels than colors the worst have names; the others are gray.
    """
    truth = evaluation.truth.reshape(evaluation.n, -1)
    areas = {
        k: average_precision_score(truth[:, k], evaluation.scores[:, k])
        for k in range(len(evaluation.labels))
        if truth[:, k].any()
    }
    named = sorted(sorted(areas, key=areas.__getitem__)[:MOST_CURVES])
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    curves: list[Line2D] = []
    captions: list[str] = []
    unnamed = [k for k in areas if k not in named]
    for k in (*unnamed, *named):  # the named ones over the others
        scores = evaluation.scores[:, k]
        precision, recall, _ = precision_recall_curve(truth[:, k], scores)
        if k not in named:
            axes.step(recall, precision, where="post", color=GRAY, linewidth=0.5)
            continue
        style = "-" if len(curves) % 2 else "--"  # for who does not see the colors
        (line,) = axes.step(recall, precision, style, where="post")
        curves.append(line)
        captions.append(f"{cut(evaluation.labels[k])} {areas[k]:.3f}")
        row = evaluation.rows[k]
        if row.precision is not None and row.recall is not None:
            axes.plot(row.recall, row.precision, "o", color=line.get_color())
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_ylim(0, 1.02)
    # By itself a legend leaves out the names that begin with an underscore.
    legend = axes.legend(
        curves,
        captions,
        title="average precision" + (f",\nlowest of {len(areas)}" if unnamed else ""),
        fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return png(figure)


def risk_coverage_plot(evaluation: Evaluation) -> bytes:
    """Error rate of the answers that remain when the least sure are withheld."""
    curve = risk_coverage(*evaluation.answer_scores)
    figure = Figure(figsize=(5, 3.5))
    axes = figure.subplots()
    axes.plot(curve.coverage, curve.risk, ".-", color=INK, markersize=2, clip_on=False)
    axes.fill_between(curve.coverage, curve.risk, color=INK, alpha=0.15)
    axes.set_title(f"area under the curve {curve.aurc:.4f}", fontsize=9)
    axes.set_xlabel("coverage: share of images answered")
    axes.set_ylabel("risk: share of answers wrong")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(0.01, 1.05 * float(curve.risk.max())))  # also without mistakes
    return png(figure)
