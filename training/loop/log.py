"""what happens → **log**: a CSV, TensorBoard's events, and a live line for people.

TensorBoard is used where it is installed; the CSV is always written. Rows that a killed
run had logged and the continued run repeats are dropped first.
"""

import csv
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from training.errors import DataError
from training.files import make_folder, whole, writing
from training.loop.bar import open_bar

Row = dict[str, float]

EVENTS = "tensorboard"  # a folder beside the table
TRIAL_BYTES = 4096  # a block of most disks; the events begin with fewer


class Log:
    """Writes one row an epoch, and shows how far the run is.

    Raises:
        DataError: the table that is there is not as it was written.
        DiskError: the folder cannot be written, at the start or at an epoch.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        total_steps: int,
        first_step: int,
        live: TextIO | None,
    ) -> None:
        self._file = folder / "log.csv" if folder is not None else None
        past = read_log(self._file) if self._file is not None else []
        self._rows = [row for row in past if row["step"] <= first_step]
        self._events = _open_events(folder / EVENTS) if folder else None
        self._bar = open_bar(live, total_steps, first_step)

    def step(self, step: int, *, loss: float, images_per_s: float) -> None:
        """Move the live line."""
        self._bar.show(step, f"loss {loss:.4f}  {images_per_s:.0f} images/s")

    def epoch(self, row: Row) -> None:
        """Add a row; the file is whole after every one."""
        if self._file is None:  # another rank writes
            return
        self._rows.append(row)
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        with (
            whole(self._file) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
        if self._events is not None:
            # TensorBoard's thread writes them: its error belongs to this epoch
            with writing(self._file.with_name(EVENTS)):
                for key, value in row.items():
                    self._events.add_scalar(key, value, int(row["step"]))
                self._events.flush()
        self._bar.say("  ".join(f"{key} {short(value)}" for key, value in row.items()))

    def aim(self, total_steps: int) -> None:
        """Another number of steps makes the whole run."""
        self._bar.aim(total_steps)

    def say(self, text: str) -> None:
        """A line for people."""
        self._bar.say(text)

    def close(self) -> None:
        """Let go of the files and of the terminal."""
        if self._events is not None:
            with suppress(OSError):  # of a full disk, which `epoch` has told of
                self._events.close()
        self._bar.close()


def read_log(path: Path) -> list[Row]:
    """The rows of a `log.csv`; none if there is no such file.

    Raises:
        DataError: a row is not one that `Log` writes.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            return [_numbers(row, rows.line_num) for row in rows]
    except (ValueError, csv.Error) as error:  # UnicodeDecodeError is one
        raise DataError(
            f"{path} is not as it was written: {error}; put a copy of it back, or "
            "remove it: the training goes on without these rows"
        ) from error


def _numbers(row: dict[str, Any], line: int) -> Row:
    """What a row's cells say; whole numbers stay whole."""
    numbers = {}
    for key, cell in row.items():
        if not isinstance(cell, str | None) or key is None:
            raise ValueError(f"line {line} has more cells than there are columns")
        if not cell:
            continue
        try:
            numbers[key] = int(cell) if cell.isdecimal() else float(cell)
        except ValueError:
            raise ValueError(f"line {line} has {cell!r} as {key}") from None
    missing = {"step", "epoch"} - numbers.keys()
    if missing:
        raise ValueError(f"line {line} has no {' and no '.join(sorted(missing))}")
    return numbers


def listed(figures: Mapping[str, float]) -> str:
    """`images 300, accuracy 0.9951`: whole numbers as they are."""
    return ", ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )


def short(value: str | float) -> str:
    """A number to four digits; counts keep all of theirs."""
    number = float(value)
    return str(int(number)) if number.is_integer() else f"{number:.4g}"


def _open_events(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError:  # tensorboard is optional
        return None
    make_folder(folder)
    with writing(folder):
        # Ours first: the writer's thread prints a traceback of what the disk refuses.
        with TemporaryFile(dir=folder) as trial:
            trial.write(bytes(TRIAL_BYTES))
        return SummaryWriter(str(folder))
