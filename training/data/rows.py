"""CSV → **rows**: cells by column, and the line of the file on which each row ends."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from classifier.manifest import MAX_LABELS
from training.data.tree import Tree
from training.errors import DataError

FILE_COLUMNS = ("filename", "file", "path", "filepath", "image", "image_path")
LABEL_COLUMNS = ("labels", "label", "class", "category", "tags", "wnid")
SPLIT_COLUMN = "split"
SEPARATOR = "|"

# A row is a thousand times as large in memory as in the file that has the fewest bytes.
# Each needs a file of its own: with some more, it is still said which one is missing.
SURPLUS_ROWS = 10_000
MAX_COLUMNS = MAX_LABELS + 1_000  # a label each, and what else a table holds
MAX_CELLS = 100_000_000  # of 45 bytes

Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """The rows of one CSV file."""

    where: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    lines: tuple[int, ...]  # of the file, on which each row ends

    def column(self, allowed: tuple[str, ...]) -> str | None:
        """The first of the allowed columns that the table has, by lower-case name."""
        found = {name.lower(): name for name in reversed(self.columns)}
        return next((found[name] for name in allowed if name in found), None)

    def place(self, row: int) -> str:
        """The file and the line of a row, for messages."""
        return f"{self.where}, line {self.lines[row]}"


def parse_table(tree: Tree, name: str) -> Table:
    """Read a CSV file of the tree; what separates its cells is seen in the header.

    Raises:
        DataError: it is no CSV in UTF-8, has no rows, two columns of one name that are
            both read, a row with more or fewer cells than the header, more rows than
            there are files, or more columns than there may be labels.
    """
    where = tree.where / name
    text = _decoded(where, tree.read(name))
    header = _header(text)
    delimiter = max(",;\t", key=header.count)
    file = _Lines(where, text, delimiter)
    # strict: else a quote that is not closed takes the rows up to the next one
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[Row] = []
    lines: list[int] = []
    try:
        first = next(filter(_says_something, file.rows(reader)), [])
        columns = [name.strip() for name in first]
        _refuse_twice(where, columns)
        for cells in file.rows(reader):
            if not _says_something(cells):
                continue  # what spreadsheets leave of a row that was emptied
            _check_cells(f"{where}, line {reader.line_num}", columns, cells)
            rows.append(dict(zip(columns, cells, strict=False)))
            lines.append(reader.line_num)
            if len(rows) > len(tree.names) + SURPLUS_ROWS:
                raise DataError(
                    f"{where}, line {reader.line_num}: more rows than there are files "
                    f"({len(tree.names)}); each row names a file of its own"
                )
            if len(rows) * len(columns) > MAX_CELLS:
                raise DataError(
                    f"{where}, line {reader.line_num}: more than {MAX_CELLS} cells; "
                    f"labels in one column, separated by {SEPARATOR}, need far fewer"
                )
    except csv.Error as error:
        raise DataError(
            f"{where}, line {reader.line_num}: {error}; quotes stand around a whole "
            "cell, and one inside them is written twice"
        ) from error
    if not rows:
        raise DataError(f"{where} has no rows")
    return Table(where, tuple(columns), tuple(rows), tuple(lines))


def _header(text: str) -> str:
    """The first line that is more than blanks and separators."""
    begin = re.match(r"[\s,;]*", text)
    end = begin.end() if begin else 0
    start = max(text.rfind("\n", 0, end), text.rfind("\r", 0, end)) + 1
    return re.split(r"[\r\n]", text[start:], maxsplit=1)[0]


def _says_something(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


def _check_cells(place: str, columns: list[str], cells: list[str]) -> None:
    """Refuse a row that lacks a cell, or has one that no column tells the meaning of.

    A cell that is not there, taken for empty, would say that a label does not apply.
    Spreadsheets make the header as wide as the widest row, so what has a column may
    have no name for it. Only the first: pandas numbers the rows there.
    """
    absent = [name for name in columns[len(cells) :] if name]
    if absent:
        raise DataError(
            f"{place}: no cell for column {absent[0]!r}; the row has {len(cells)} and "
            f"the header {len(columns)}"
        )
    if len(cells) == len(columns) and "" not in columns[1:]:  # as nearly all
        return
    named = [True, *map(bool, columns[1:]), *(False for _ in cells[len(columns) :])]
    surplus = (cell for cell, known in zip(cells, named, strict=False) if not known)
    said = next(filter(None, map(str.strip, surplus)), None)
    if said is not None:
        raise DataError(
            f"{place}: {said!r} has no column, or one without a name; several labels "
            f"of an image stand in one cell, separated by {SEPARATOR}"
        )


class _Lines:
    """The lines of a file, whatever they end with, for rows of so many cells.

    A row may have any number of lines; their separators are counted before each cell
    becomes an object.
    """

    def __init__(self, where: Path, text: str, delimiter: str) -> None:
        self._where, self._delimiter = where, delimiter
        self._file = io.StringIO(text, newline="")
        self._separators = 0  # since the last row

    def __iter__(self) -> Iterator[str]:
        """For `csv.reader`. Raises DataError where the row gets too long."""
        for line in self._file:
            self._separators += line.count(self._delimiter)
            if self._separators >= MAX_COLUMNS:
                raise DataError(
                    f"{self._where}: a row has more than {MAX_COLUMNS} cells, more "
                    "than there may be labels"
                )
            yield line

    def rows(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        """What is read of these lines; each row is counted anew."""
        self._separators = 0
        for cells in reader:
            yield cells
            self._separators = 0


def _decoded(where: Path, content: bytes) -> str:
    """The text of the file, with or without a byte order mark."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{where}, line {line} is not UTF-8; save it as that, which spreadsheets "
            'call "CSV UTF-8"'
        ) from error


def _refuse_twice(where: Path, columns: list[str]) -> None:
    """Of two columns of one name that are read the last would hide the first."""
    known = {*FILE_COLUMNS, *LABEL_COLUMNS, SPLIT_COLUMN}  # in any case of letters
    all_are_read = not any(name.lower() in LABEL_COLUMNS for name in columns)
    first: dict[str, str] = {}
    for name in filter(None, columns):
        key = name.lower() if name.lower() in known else name
        if key in first and (all_are_read or key in known):
            both = " and ".join(map(repr, dict.fromkeys((first[key], name))))
            raise DataError(
                f"{where} has two columns of one name, {both}; take one of them out"
            )
        first[key] = name
