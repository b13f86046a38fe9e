"""CSV → **dataset**: a path and its labels on every row.

    filename,labels,split          file,cat,dog,tree
    1.jpg,car|person,train         1.jpg,1,0,1

Either one column of labels, several of them separated by `|`, or a column a label with
0 and 1, where an empty cell is 0 too. A file has one row. `split` is optional. Paths
are relative to the CSV, or to `images/` beside it; absolute ones must lie below its
folder.
"""

import logging
import os
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.manifest import MAX_LABELS
from classifier.names import is_image_name
from training.data.dataset import (
    Dataset,
    FileSamples,
    Labels,
    Split,
    first_of,
    occurring,
)
from training.data.folder import (
    class_folders,
    fewest_labels,
    label_groups,
    nfc,
    refuse_unclear,
)
from training.data.rows import (
    FILE_COLUMNS,
    LABEL_COLUMNS,
    SEPARATOR,
    SPLIT_COLUMN,
    Table,
    parse_table,
)
from training.data.tree import SPLIT_FOLDERS, Tree, links, name_of
from training.errors import DataError

LOGGER = logging.getLogger(__name__)

IMAGES = "images"  # a folder beside the CSV, which need not name it
TRUE = re.compile(r"1(\.0*)?|true")
FALSE = re.compile(r"(0(\.0*)?|false)?")  # empty: people mark only what is there

Indices = list[list[int]]  # the labels of each row: few, however large N x K is


def read_table(
    tree: Tree, name: str, *, multi_label: bool | None = None, trainable: bool = True
) -> Dataset:
    """Read a CSV file of the tree.

    `multi_label` None means: multi-label if any row has several labels, or none.

    Raises:
        DataError: a column is missing, a file is missing or listed twice, a cell cannot
            be understood, or it or its column is not there, a label is unclear,
            or there is none; where it must be trainable, train is missing, there are
            fewer than two labels, or a split has one that train lacks.
    """
    table = parse_table(tree, name)
    files = _files(table, tree)
    label_names, found = _labels(table)
    refuse_unclear(table.where, label_names)
    fewest = fewest_labels(trainable)
    if len(label_names) < fewest:
        raise DataError(
            f"{table.where} has {len(label_names)} label(s) {list(label_names)}; "
            f"at least {fewest} must be there{_as_question(table)}"
        )
    if len(label_names) > MAX_LABELS:  # before an array of them all is made
        raise DataError(
            f"{table.where} has {len(label_names)} labels; at most {MAX_LABELS} are "
            "allowed"
        )
    labels = _array(table, found, len(label_names), multi_label=multi_label)
    splits = {}
    for split, rows in _rows_by_split(table).items():
        samples = FileSamples(tree, tuple(files[row] for row in rows))
        splits[split] = Split(split, samples, labels[rows])
    if trainable:
        _refuse_unseen(table, splits, label_names)
    ignored = _in_no_row(tree, files)
    return Dataset(
        name=name_of(tree.where),
        label_names=label_names,
        groups=label_groups(label_names),
        parts=splits,
        ignored=ignored,
        read_by=_read_by(table, ignored),
    )


def _as_question(table: Table) -> str:
    """What to add to an error of too few labels, if one column says yes and no."""
    if table.column(LABEL_COLUMNS):
        return ""
    return (
        '. A question of yes and no has its answers in a column "label", and the one '
        "that means yes in data.positive of the config"
    )


def _in_no_row(tree: Tree, files: list[str]) -> tuple[str, ...]:
    """Images beside the CSV that it leaves out: half of a list may be lost."""
    named = frozenset(files)
    left = [name for name in tree.names if is_image_name(name) and name not in named]
    if left:
        LOGGER.info(
            "%s: no row has %d image(s), such as %s", tree.where, len(left), left[0]
        )
    return tuple(left)


def _read_by(table: Table, ignored: tuple[str, ...]) -> str:
    """The CSV and its columns; whoever meant other labels or splits sees it here."""
    label = table.column(LABEL_COLUMNS)
    known = (table.column(FILE_COLUMNS), label, table.column((SPLIT_COLUMN,)))
    columns = [name for name in dict.fromkeys(table.columns) if name]
    read = [name for name in columns if label is None or name in known]
    others = [name for name in columns if name not in read]
    said = f"{table.where.name}: {first_of(read)}"
    if others:
        said += f"; columns not read: {first_of(others)}"
        LOGGER.info("%s: columns not read: %s", table.where, first_of(others))
    if len(class_folders(ignored) - {IMAGES}) > 1:
        said += "; folders are not read as labels"
    return said


def _files(table: Table, tree: Tree) -> list[str]:
    column = table.column(FILE_COLUMNS)
    if column is None:
        raise _missing(table, "a column with the file", FILE_COLUMNS)
    present, composed = frozenset(tree.names), _composed(tree)
    folders = (Path(os.path.abspath(tree.where)), tree.where.resolve())
    row_of: dict[str, int] = {}
    for n, row in enumerate(table.rows):
        given = row[column].strip().replace("\\", "/").removeprefix("./")
        name = _inside(given, folders) if os.path.isabs(given) else given
        places = (name, f"{IMAGES}/{name}")
        exact = (place for place in places if place in present)
        alike = (composed.get(nfc(place)) for place in places)
        found = next(exact, None) or next(filter(None, alike), None)
        if found is None:
            raise DataError(f"{table.place(n)}: {_absence(name, tree)}")
        if found in row_of:  # a cut could put one image into train and validation
            raise DataError(
                f"{table.place(n)}: {found!r} stands on line "
                f"{table.lines[row_of[found]]} already; several labels of an image go "
                f"into one row, separated by {SEPARATOR}"
            )
        row_of[found] = n
    return list(row_of)


def _composed(tree: Tree) -> dict[str, str]:
    """Files with accents by their names in NFC, unless two have the same one.

    A copy from or to macOS can write `é` otherwise (NFD) than the CSV does.
    """
    accented = [name for name in tree.names if not name.isascii()]
    count = Counter(map(nfc, accented))
    return {nfc(name): name for name in accented if count[nfc(name)] == 1}


def _inside(path: str, folders: tuple[Path, ...]) -> str:
    """An absolute path as seen from the first folder that it lies in, or as it is."""
    below = (Path(path).relative_to(f) for f in folders if Path(path).is_relative_to(f))
    return next((inside.as_posix() for inside in below), path)


def _absence(name: str, tree: Tree) -> str:
    if os.path.isabs(name) or name.startswith("../"):
        return f"{name!r} does not lie below the CSV's folder, where all paths must"
    unseen = links(tree)
    reason = f"; links to folders are not followed: {unseen[0]}" if unseen else ""
    return f"there is no file {name!r}{reason}"


def _labels(table: Table) -> tuple[tuple[str, ...], Indices]:
    column = table.column(LABEL_COLUMNS)
    return _in_cells(table, column) if column else _in_columns(table)


def _array(
    table: Table, rows: Indices, count: int, *, multi_label: bool | None
) -> Labels:
    if multi_label is None:
        multi_label = any(len(row) != 1 for row in rows)
    if not multi_label:
        return _single(table, rows)
    hot = np.zeros((len(rows), count), np.uint8)
    for n, row in enumerate(rows):
        hot[n, row] = 1
    return hot


def _in_cells(table: Table, column: str) -> tuple[tuple[str, ...], Indices]:
    cells = [_cell_labels(row[column]) for row in table.rows]
    names = tuple(sorted({label for cell in cells for label in cell}))
    index = {name: k for k, name in enumerate(names)}
    return names, [[index[label] for label in cell] for cell in cells]


def _cell_labels(cell: str) -> frozenset[str]:
    return frozenset(label.strip() for label in cell.split(SEPARATOR) if label.strip())


def _in_columns(table: Table) -> tuple[tuple[str, ...], Indices]:
    known = (table.column(FILE_COLUMNS), table.column((SPLIT_COLUMN,)))
    names = tuple(name for name in table.columns if name and name not in known)
    if not names:
        raise _missing(table, "a column with the labels", LABEL_COLUMNS)
    rows: Indices = [[] for _ in table.rows]
    for n, row in enumerate(table.rows):
        for k, name in enumerate(names):
            yes = _is_yes(row[name])
            if yes is None:
                raise DataError(
                    f"{table.place(n)}: column {name!r} holds {row[name]!r}. "
                    f"Without a column {' or '.join(LABEL_COLUMNS)}, every other "
                    "column is a label with 0 or 1; take out what is none"
                )
            if yes:
                rows[n].append(k)
    return names, rows


@lru_cache(maxsize=256)
def _is_yes(cell: str) -> bool | None:
    """What a cell says of its label; None: nothing. There are N x K, and few differ."""
    said = cell.strip().lower()
    if TRUE.fullmatch(said):
        return True
    return False if FALSE.fullmatch(said) else None


def _single(table: Table, rows: Indices) -> NDArray[np.int64]:
    odd = next((n for n, row in enumerate(rows) if len(row) != 1), None)
    if odd is not None:
        raise DataError(
            f"{table.place(odd)}: {len(rows[odd])} labels where exactly one is "
            "expected; several, or none, are of the task multilabel"
        )
    return np.array([k for (k,) in rows], np.int64)


def _rows_by_split(table: Table) -> dict[str, NDArray[np.int64]]:
    column = table.column((SPLIT_COLUMN,))
    if column is None:
        return {"train": np.arange(len(table.rows))}
    rows: dict[str, list[int]] = {}
    for n, row in enumerate(table.rows):
        split = SPLIT_FOLDERS.get(row[column].strip().lower())
        if split is None:
            raise DataError(
                f"{table.place(n)}: split {row[column]!r}; allowed are "
                f"{', '.join(SPLIT_FOLDERS)}"
            )
        rows.setdefault(split, []).append(n)
    return {split: np.array(found, np.int64) for split, found in rows.items()}


def _refuse_unseen(
    table: Table, splits: dict[str, Split], label_names: tuple[str, ...]
) -> None:
    if "train" not in splits:
        raise DataError(f"{table.where}: no row has the split 'train'")
    seen = occurring(splits["train"].labels, len(label_names))
    for name, split in splits.items():
        unseen = np.flatnonzero(occurring(split.labels, len(label_names)) & ~seen)
        if len(unseen):
            raise DataError(
                f"{table.where}: label {label_names[unseen[0]]!r} occurs in {name} and "
                "not in train"
            )


def _missing(table: Table, what: str, allowed: tuple[str, ...]) -> DataError:
    return DataError(
        f"{table.where} lacks {what}: one of {', '.join(allowed)}; "
        f"it has {', '.join(table.columns)}"
    )
