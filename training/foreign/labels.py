"""label file → **labels**, in the order of a network's outputs."""

import csv
import io
import json
import reprlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from classifier.manifest import MAX_LABELS, Label, describe_problems
from training.errors import AnswerError

MAX_LABEL_BYTES = 16 * 2**20
KNOWN_LABELS = {"imagenet": Path(__file__).parents[1] / "labels" / "imagenet.csv"}


def read_labels(source: str) -> tuple[Label, ...]:
    """The labels in the order of the network's outputs.

    Takes `imagenet`, a text file with a name a line, a CSV file with the columns `id`
    and `name` (and `group`), or JSON: a list of names, or Keras's
    {"0": ["id", "name"], …}.

    Raises:
        AnswerError: missing, too large, or none of these: with the line or the label.
    """
    path = KNOWN_LABELS.get(source, Path(source))
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise AnswerError(f"{path} has more than {MAX_LABEL_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnswerError(f"cannot read labels from {path}: {error}") from error
    readers = {".csv": _from_csv, ".json": _from_json}
    try:
        rows = readers.get(path.suffix.lower(), _from_lines)(text)
        # one too many says enough: their number has to be the network's
        labels = tuple(_label(*row) for row in islice(rows, MAX_LABELS + 1))
    except (ValueError, RecursionError, csv.Error) as error:
        raise AnswerError(f"cannot read labels from {path}: {error}") from error
    if not labels:
        raise AnswerError(f"{path} has no labels")
    if path.suffix.lower() == ".csv":
        _refuse_order(path, labels)
    ids = Counter(label.id for label in labels)
    twice = next((label_id for label_id, n in ids.items() if n > 1), None)
    if twice is not None:
        raise AnswerError(
            f"{path} has {twice!r} twice; use a CSV file with columns id and name"
        )
    return labels


def _refuse_order(path: Path, labels: tuple[Label, ...]) -> None:
    """Refuse ids that number the outputs, and stand in another order than these.

    Labels that are numbers themselves, such as those of digits, may stand in any, and
    ids may be sorted as texts are: folders 1 to 102 were, when a network was trained.
    """
    ids = [label.id for label in labels]
    if ids == sorted(ids) or any(label.id == label.name for label in labels):
        return
    numbers = [int(label.id) for label in labels if label.id.isdecimal()]
    first = min(numbers, default=0)
    ordered = list(range(first, first + len(labels)))
    if first <= 1 and numbers != ordered and sorted(numbers) == ordered:
        raise AnswerError(
            f"{path} has the labels in another order than their ids number them: "
            f"{labels[0].id!r} comes first. If they number the outputs, sort it by id, "
            "for labels are read in the order of the outputs; else give other ids"
        )


Row = tuple[str, str, str, str | None]  # place in the file, id, name, group


def _label(place: str, label_id: str, name: str, group: str | None) -> Label:
    label_id, name, group = label_id.strip(), name.strip(), (group or "").strip()
    try:
        return Label(id=label_id, name=name, group=group or None)
    except ValidationError as error:
        raise ValueError(f"{place}: {describe_problems(error)}") from error


def _from_lines(text: str) -> Iterator[Row]:
    # `splitlines` would also part names at a form feed, or at U+2028 from a website
    begun = False
    for number, line in enumerate(text.rstrip().split("\n"), 1):
        if name := line.strip():
            begun = True
            yield f"line {number}", name, name, None
        elif begun:  # above the first name it is nobody's
            raise ValueError(f"line {number} is empty; each line is a name")


def _from_csv(text: str) -> Iterator[Row]:
    table = csv.DictReader(io.StringIO(text))
    columns = table.fieldnames or ()
    if "name" not in columns:
        raise ValueError(
            f"its columns are {', '.join(map(repr, columns)) or 'none'}; `name` is "
            "needed, and `id` and `group` are read, by the first line"
        )
    for name in ("id", "name", "group"):  # of two the last would hide the first
        if columns.count(name) > 1:
            raise ValueError(f"it has the column {name!r} twice; take one of them out")
    for row in table:
        place = f"line {table.line_num}"
        if not row["name"]:
            raise ValueError(f"{place} has no name")
        if None in row:  # what is left over; a name would be cut at its comma
            raise ValueError(
                f"{place} has {len(columns) + len(row[None])} values for "
                f"{len(columns)} columns; a comma in a name needs quotes around it"
            )
        label_id = row.get("id") or row["name"]
        yield place, label_id, row["name"], row.get("group")


def _from_json(text: str) -> Iterator[Row]:
    found = json.loads(text, object_pairs_hook=_of_unique_keys)
    if isinstance(found, dict):
        keys = [str(index) for index in range(len(found))]
        missing = next((key for key in keys if key not in found), None)
        if missing is not None:
            raise ValueError(
                f'it has no "{missing}"; {len(found)} labels are numbered from "0" to '
                f'"{len(found) - 1}"'
            )
        found = [found[key] for key in keys]
    if not isinstance(found, list):
        raise ValueError('it is neither a list of names nor {"0": ["id", "name"], …}')
    return (_from_item(index, item) for index, item in enumerate(found))


def _of_unique_keys(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which Python would keep the last of two equal keys."""
    keys = Counter(key for key, _ in members)
    twice = next((key for key, n in keys.items() if n > 1), None)
    if twice is not None:
        raise ValueError(f"it has the key {reprlib.repr(twice)} twice")
    return dict(members)


def _from_item(index: int, item: object) -> Row:
    match item:
        case str(name):
            return f"label {index}", name, name, None
        case [str(label_id), str(name)]:
            return f"label {index}", label_id, name, None
    said = reprlib.repr(item)
    raise ValueError(f'label {index} is {said}; "name" or ["id", "name"] is needed')
