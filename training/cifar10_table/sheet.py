"""cells ↔ **sheet**: the CIFAR-10 table as JSON, and as Markdown for people.

A cell that was not measured says so; nothing else can fill it. One that is measured
again keeps its figures of before, and how often the test split was looked at.
"""

import json
from pathlib import Path
from typing import Any

from training.cifar10_table.rows import ROWS, Row
from training.errors import TrainingError
from training.files import write_whole
from training.provenance import write_results

NOT_RUN = "not yet run"
FULL = 50_000  # images of the train split

Sheet = dict[str, dict[str, Any]]  # label → cell


def empty(row: Row) -> dict[str, Any]:
    """The cell of a network that has not been run."""
    return {"network": row.network, "goal": row.goal, "status": NOT_RUN, "looks": 0}


def emptied(row: Row, cell: dict[str, Any]) -> dict[str, Any]:
    """A measured cell that is to be measured again, with what is known of before."""
    kept = ("accuracy", "accuracy_two_views", "epochs", "seconds", "circumstances")
    earlier = [*cell.get("earlier", []), {name: cell[name] for name in kept}]
    return empty(row) | {"looks": cell["looks"], "earlier": earlier}


def looked(cell: dict[str, Any]) -> int | None:
    """Looks at the test split, with one more; None where they were not counted."""
    return None if cell["looks"] is None else cell["looks"] + 1


def load_sheet(path: Path, *, images: int = FULL) -> Sheet:
    """The sheet so far, or one without a measurement.

    Raises:
        TrainingError: the file is damaged, or was made with another number of images.
    """
    sheet: Sheet = {row.label: empty(row) for row in ROWS}
    if not path.is_file():
        return sheet
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["networks"]
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{path} is no table of this command: {error}") from error
    for label, cell in found.items():
        if cell.get("train_images", images) != images:
            raise TrainingError(
                f"{path} was measured with {cell['train_images']} training images, and "
                f"this run has {images}: give another --results and --out"
            )
        if label in sheet:
            begun = cell["status"] != NOT_RUN
            uncounted = {"looks": None} if begun else {}  # by versions of before
            sheet[label] |= uncounted | cell
    return sheet


def write_sheet(path: Path, sheet: Sheet) -> None:
    """Write the JSON file and, beside it, the same as Markdown."""
    write_results(path, {"networks": sheet})
    write_whole(path.with_suffix(".md"), markdown(sheet))


def markdown(sheet: Sheet) -> str:
    """One line a network; percent on the test split."""
    lines = [
        "| network | goal | single view | two views | epochs | seconds | machine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label, cell in sheet.items():
        if cell["status"] != "measured":
            lines.append(f"| {label} | > {cell['goal']} | {NOT_RUN} | | | | |")
            continue
        seen = cell["circumstances"]
        machine = seen["gpu"] or seen["machine"]
        partly = cell["train_images"] != FULL
        note = f" ({cell['train_images']} images only)" if partly else ""
        note += f" (look {cell['looks']})" if (cell["looks"] or 1) > 1 else ""
        lines.append(
            f"| {label} | > {cell['goal']} | {cell['accuracy']}{note} | "
            f"{cell['accuracy_two_views']} | {cell['epochs']} | {cell['seconds']} | "
            f"{machine} |"
        )
    return "\n".join(lines) + "\n"
