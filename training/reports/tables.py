"""a record of a run or of an evaluation → **tables** of its page."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.loop.log import short


def transfer_table(record: dict[str, Any]) -> dict[str, Any]:
    """Probe and fine-tuning side by side; the one that was kept is named."""
    names = list(record["probe"])
    stages = [("probe", record["probe"]), ("fine-tuned", record["finetuned"])]
    rows = [
        [stage, *(f"{scores[name]:.4f}" for name in names)]
        for stage, scores in stages
        if scores is not None
    ]
    title = f"Transfer, on validation (kept: {record['kept']})"
    return {"title": title, "head": ["stage", *names], "rows": rows}


def evaluation_table(found: dict[str, Any]) -> dict[str, Any]:
    """Figures with their intervals."""
    rows = []
    for name, value in sorted(found["metrics"].items()):
        ends = found["intervals_95"].get(name)
        interval = "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
        rows.append([name, f"{value:.4f}", interval])
    title = f"Measured on {found['n']} images ({found['dataset']}, {found['split']})"
    return {"title": title, "head": ["figure", "value", "95 % interval"], "rows": rows}


def class_tables(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each label, and the pairs that are most often mixed up."""
    if found["per_class"]:
        counts, figures = ("n", "predicted"), ("precision", "recall", "f1")
        rows = [
            [
                row["label"],
                *(short(row[name]) for name in counts),
                *("" if row[name] is None else f"{row[name]:.3f}" for name in figures),
            ]
            for row in found["per_class"]
        ]
        head = ["label", "images", "answered", "precision", "recall", "F1"]
        yield {"title": "By class", "head": head, "rows": rows}
    if pairs := found.get("confusable_pairs"):
        rows = [[*pair["labels"], *map(str, pair["counts"])] for pair in pairs]
        head = ["one", "other", "one called the other", "other called the one"]
        yield {"title": "Most often mixed up", "head": head, "rows": rows}


def log_table(path: Path) -> dict[str, Any]:
    """The epochs, to four digits; the file has all."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows:
        raise ValueError("it is empty")
    if any(len(row) != len(rows[0]) for row in rows):
        raise ValueError("its rows differ in length")
    cells = [[short(cell) if cell else "" for cell in row] for row in rows[1:]]
    return {"title": "Epochs", "head": rows[0], "rows": cells}
