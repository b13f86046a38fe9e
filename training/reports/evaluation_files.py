"""evaluation → **files and a table**: JSON with its circumstances, plots, mistakes."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from classifier import Classifier
from training.data.dataset import Split
from training.evaluation.evaluate import Evaluation
from training.evaluation.metrics import confusable_pairs
from training.files import write_whole, writing
from training.provenance import circumstances, command_line, write_results
from training.reports.card import CAPTIONS
from training.reports.mistakes import all_mistakes, draw_sheet, list_mistakes
from training.reports.plots import draw_all

EVALUATION, MISTAKES = "evaluation.json", "mistakes.csv"


def write_evaluation(
    evaluation: Evaluation,
    classifier: Classifier,
    split: Split,
    folder: Path,
    *,
    results: Path | None = None,
) -> None:
    """`evaluation.json`, the plots and the mistakes into `folder`, in place of those of
    an earlier evaluation; the figures alone into the file `results` too, where
    one is named.
    """
    manifest = classifier.manifest
    facts = evaluation.as_json() | {
        "bundle": manifest.full_name,
        "precision": str(classifier.variant.precision),
        "graph_sha256": classifier.variant.sha256,
        "data_sha256": split.sha256(),
        **circumstances(command_line()),
    }
    if evaluation.thresholds is None:
        names = evaluation.labels
        facts["confusable_pairs"] = [
            {"labels": [names[p.a], names[p.b]], "counts": [p.a_as_b, p.b_as_a]}
            for p in confusable_pairs(evaluation.scores, evaluation.truth)
        ]
    if results is not None:
        write_results(results, facts)
    _remove_pictures(folder)
    write_results(folder / EVALUATION, facts)
    for name, picture in draw_all(evaluation).items():
        write_whole(folder / name, picture)
    mistakes = all_mistakes(evaluation)
    write_whole(folder / MISTAKES, list_mistakes(mistakes, split))
    sheet = draw_sheet(mistakes, split, manifest.preprocess)
    if sheet is not None:
        write_whole(folder / "mistakes.jpg", sheet)


def _remove_pictures(folder: Path) -> None:
    """Another task has other plots: one that is not drawn anew would pass for ours."""
    for name in CAPTIONS:
        with writing(folder / name):
            (folder / name).unlink(missing_ok=True)


def print_table(evaluation: Evaluation, *, precision: str) -> None:
    """The figures, with their intervals, to the terminal.

    `precision` is that of the measured graph: `auto` chooses another one elsewhere.
    """
    data = f"{evaluation.dataset}, {evaluation.split}"
    title = f"{data}: {evaluation.n} images, {precision}"
    table = Table(title=escape(title))
    for column in ("figure", "value", "95 % interval"):
        table.add_column(
            column, justify="left" if column == "figure" else "right", overflow="fold"
        )
    for name, value in sorted(evaluation.metrics.items()):
        low, high = evaluation.intervals.get(name, (None, None))
        interval = "" if low is None else f"{low:.4f} to {high:.4f}"
        table.add_row(name, f"{value:.4f}", interval)
    Console(emoji=False).print(table)
