"""files, folders, globs → **answers**: a table for eyes, CSV or JSONL for programs."""

import csv
import glob
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TextIO

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from classifier.bundle import default_name, list_bundles
from classifier.classifier import Classification, Classifier
from classifier.device import DeviceChoice
from classifier.errors import BundleError, ImageError
from classifier.names import image_files
from classifier.texts import visible
from classifier.variant import PrecisionChoice
from service.commands import DEVICE_HELP, PRECISION_HELP

VISIBLE = 0.005  # a lower score would be shown as 0.00

STDIN = Path("/dev/stdin")

Result = tuple[Path, Classification | ImageError]


def command(
    paths: Annotated[
        list[str],
        typer.Argument(help="Files, folders, globs ('**/*.jpg'); - reads one image."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            envvar="LINNAEUS_DEFAULT_MODEL",
            help="Name (NAME or NAME/2) in the models folder, or a path. Unset: the "
            "only model, else imagenet.",
        ),
    ] = None,
    models: Annotated[
        Path, typer.Option(envvar="LINNAEUS_MODELS", help="Folder of bundles.")
    ] = Path("models"),
    top_k: Annotated[
        int | None, typer.Option(help="How many labels; unset: the model's own.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Score from which a label counts, 0 to 1.")
    ] = None,
    output: Annotated[
        Literal["table", "csv", "jsonl"],
        typer.Option("--format", help="Of the answers."),
    ] = "table",
    device: Annotated[
        DeviceChoice, typer.Option(envvar="LINNAEUS_DEVICE", help=DEVICE_HELP)
    ] = "auto",
    precision: Annotated[
        PrecisionChoice,
        typer.Option(envvar="LINNAEUS_PRECISION", help=PRECISION_HELP),
    ] = "auto",
) -> None:
    """Classify images and print the answers, in order. Exit code 1 if one failed."""
    found = [list(find_images(name)) for name in paths]
    files = [file for files in found for file in files]
    names = [name or "''" for name in paths]
    empty = [name for name, files in zip(names, found, strict=True) if not files]
    if not files:
        raise typer.BadParameter(f"no image among: {' '.join(names)}")
    folder = find_bundle(model, models)
    classifier = Classifier.load(folder, device=device, precision=precision)
    answers = classifier.classify_many(files, top_k=top_k, threshold=threshold)
    results = zip(files, answers, strict=True)
    ids = [label.id for label in classifier.manifest.labels]
    failed = write(results, output, ids=ids, total=len(files))
    for name in empty:
        typer.secho(f"no image among: {name}", fg="red", err=True)
    if failed:
        typer.secho(f"{failed} of {len(files)} images failed", fg="red", err=True)
    if failed or empty:
        raise typer.Exit(1)


def find_bundle(model: str | None, models: Path) -> Path:
    """The folder of a model, by name or path; of the default one where none is named.

    Raises:
        BundleError: there is none; says where it was looked for, and what is there.
    """
    if model is not None:
        for folder in (models / model, Path(model)):
            try:
                if folder.exists():
                    return folder
            except OSError as error:  # a name too long, a folder that is closed to us
                raise BundleError(f"cannot look for the model: {error}") from error
    there = list_bundles(models)
    name = default_name(there)
    if model is None and name is not None:
        return models / name
    bundles = [f"{name}/{number}" for name in there for number in there[name]]
    looked = f"{models} holds {', '.join(bundles) or 'no bundle'}"
    if not models.is_dir():
        looked = f"{models} is no folder; --models names the one with bundles"
    if model is None:
        raise BundleError(f"--model must name a model: {looked}")
    raise BundleError(f"there is no model {model!r}: {looked}")


def write(
    results: Iterable[Result], output: str, *, ids: Sequence[str], total: int
) -> int:
    """Print all answers, under a bar on a terminal; how many images failed.

    `ids` are those of the model's labels, by class index.
    """
    writers: dict[str, Callable[[Iterable[Result], TextIO], int]] = {
        "table": write_table,
        "csv": partial(write_csv, ids=ids),
        "jsonl": write_jsonl,
    }
    with closing(under_bar(results, output, total)) as answers:
        return writers[output](answers, sys.stdout)


def find_images(name: str) -> Iterator[Path]:
    """A file as named; a folder or glob searched, sorted; - is standard input.

    In a folder only files with the suffix of an image are tried, and none that an
    archiver or a file manager left there: `._cat.jpg` of macOS is no photo. Where
    `name` is empty, as an unset variable of a shell is, there is none.
    """
    if not name:
        return
    path = STDIN if name == "-" else Path(name)
    # `os.path`, for a Path that is too long or closed to us raises where it is asked
    # what it is; it is to fail in its own row
    if os.path.isdir(path):
        yield from image_files(path)
    elif glob.has_magic(name) and not os.path.exists(path):
        found = sorted(Path(p) for p in glob.glob(name, recursive=True))
        yield from (p for p in found if not os.path.isdir(p))
    else:
        yield path


def under_bar(results: Iterable[Result], output: str, total: int) -> Generator[Result]:
    """The same, with a bar on stderr while there is something to wait for and someone
    to look. Lines on a terminal tell by themselves how far it is.
    """
    console = Console(stderr=True)
    listed = output != "table" and sys.stdout.isatty()
    if listed or total == 1 or not console.is_terminal:
        yield from results
        return
    columns = (
        TextColumn("classify"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,  # to stderr, away from the file or pipe of the answers
    ) as bar:
        yield from bar.track(results, total=total)


def write_table(results: Iterable[Result], out: TextIO) -> int:
    """A row an image; returns how many failed."""
    table, failed = Table(box=SIMPLE), 0
    for column in ("image", "answer", "score", "next"):
        table.add_column(column, overflow="fold")
    for path, result in results:
        if isinstance(result, ImageError):
            failed += 1
            table.add_row(in_cell(str(path)), f"[red]{in_cell(str(result))}[/red]")
        else:
            table.add_row(in_cell(str(path)), *_cells(result))
    Console(file=out, emoji=False).print(table)
    return failed


def _cells(result: Classification) -> list[str]:
    named = name_labels(result)
    if not named:
        text = "abstained" if result.abstained else "no label over its threshold"
        return [f"[dim]{text}[/dim]", "", ""]
    best, *others = named
    answer = best.label
    if result.groups:
        group = result.groups[0]  # of another ranking: it need not be the label's
        answer = f"{answer} (best group: {group.group} {group.score:.2f})"
    following = ", ".join(
        f"{other.label} {other.score:.2f}" for other in others if other.score >= VISIBLE
    )
    return [in_cell(answer), f"{best.score:.3f}", in_cell(following)]


def in_cell(text: str) -> str:
    """Text for a cell, as it is: without rich's markup, and harmless to a terminal."""
    return escape(visible(text))


class Named(NamedTuple):
    """A label of a row, with its own score."""

    label: str
    class_index: int
    score: float


def name_labels(result: Classification) -> list[Named]:
    """The labels of an answer, best first.

    A binary answer predicts the positive label whatever it decides. A row names the
    label decided on, so of the negative one the score is what is left to 1.
    """
    predictions, decision = result.predictions, result.decision
    if decision is not None and decision != predictions[0].label:
        return [Named(decision, 0, 1 - predictions[0].score)]
    return [Named(p.label, p.index, p.score) for p in predictions]


def write_csv(results: Iterable[Result], out: TextIO, *, ids: Sequence[str]) -> int:
    """A row a label (a failed or empty image has one row); returns failures."""
    writer, failed = csv.writer(out), 0
    columns = ("image", "rank", "label", "id", "index", "score", "decision", "error")
    writer.writerow(columns)
    for path, result in results:
        if isinstance(result, ImageError):
            failed += 1
            writer.writerow((path, *[""] * 6, result))
            continue
        decision, named = result.decision, name_labels(result)
        if not named:
            writer.writerow((path, *[""] * 5, decision, ""))
        for rank, (label, index, score) in enumerate(named, 1):
            of = (label, ids[index], index, f"{score:.6f}")
            writer.writerow((path, rank, *of, decision, ""))
    return failed


def write_jsonl(results: Iterable[Result], out: TextIO) -> int:
    """One JSON object an image, as over HTTP; returns how many failed."""
    failed = 0
    for path, result in results:
        line: dict[str, Any] = {"path": str(path)}
        if isinstance(result, ImageError):
            failed += 1
            line["error"] = {"code": result.code, "detail": str(result)}
        else:
            line |= asdict(result, dict_factory=without_absent)
        # in ASCII, because a file's name may be no valid Unicode
        out.write(json.dumps(line) + "\n")
        out.flush()
    return failed


def without_absent(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members that apply, as over HTTP: none is null, and `abstained` is true."""
    return {
        name: value
        for name, value in members
        if value is not None and value is not False
    }
