"""`linnaeus data`: what is in a data set, and what is wrong with it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from classifier.texts import visible

if TYPE_CHECKING:
    from training.data.check import Findings
    from training.data.dataset import Dataset

EXAMPLES = 5

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Check and describe data."
)


@app.command("check")
def check_data(
    path: Annotated[Path, typer.Argument(help="Folder, CSV, zip or tar.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="All findings as JSON, not only examples.")
    ] = False,
) -> None:
    """Find broken files, duplicates, and pictures that two splits share.

    Ends with status 1 if a file is broken, leaks or can when train is cut, or has two
    labels, or two labels seem to be one; with 2 if the data cannot be read.
    """
    from training.data.check import check  # noqa: PLC0415 - slow to load

    dataset = _load(path)
    findings = check(dataset)
    if as_json:
        typer.echo(json.dumps(asdict(findings), indent=2))
    else:
        _report(findings)
    raise typer.Exit(0 if findings.sound else 1)


@app.command("describe")
def describe_data(
    path: Annotated[Path, typer.Argument(help="Folder, CSV, zip or tar.")],
) -> None:
    """Splits, labels and how often each occurs, without decoding an image."""
    from training.data.check import count_labels, reading  # noqa: PLC0415

    dataset = _load(path)
    labels = len(dataset.label_names)
    typer.echo(f"{visible(dataset.name)}: {labels} labels, {reading(dataset)}")
    if dataset.read_by:
        typer.echo(f"read by {visible(dataset.read_by)}")
    for split in dataset.parts.values():
        _counts(split.name, len(split), count_labels(split.labels, dataset.label_names))
    groups = sorted({group for group in dataset.groups if group is not None})
    if groups:
        typer.echo(f"groups: {', '.join(groups)}")


def _load(path: Path) -> "Dataset":
    from training.data import load_dataset  # noqa: PLC0415
    from training.errors import DataError  # noqa: PLC0415

    try:
        return load_dataset(path)
    except DataError as error:
        typer.secho(f"linnaeus: {error}", fg="red", err=True)
        raise typer.Exit(2) from error


def _report(findings: "Findings") -> None:
    typer.echo(f"read as {findings.reading}")
    if findings.read_by:
        typer.echo(f"read by {visible(findings.read_by)}")
    for split, labels in findings.labels.items():
        _counts(split, findings.images[split], labels)
    _list(
        "labels that differ only in case, blanks, hyphens or underscores",
        [" ~ ".join(names) for names in findings.labels_alike],
    )
    _list("broken", [f"{name}: {what}" for name, what in findings.broken])
    _list(
        "ignored (no image suffix, beside the splits, or in no row)", findings.ignored
    )
    exact = [d for d in findings.duplicates if d.exact]
    alike = [d for d in findings.duplicates if not d.exact]
    _list("the same file twice", [f"{d.first} = {d.second}" for d in exact])
    _list("the same picture twice", [f"{d.first} ~ {d.second}" for d in alike])
    _list(
        "in two of train, validation and test",
        [f"{d.first} ~ {d.second}" for d in findings.leaks],
    )
    _list(
        "twice in train, of which validation or test can still be cut",
        [f"{d.first} ~ {d.second}" for d in findings.parted],
    )
    _list(
        "the same picture under different labels",
        [f"{d.first} ~ {d.second}" for d in findings.contradictions],
    )
    verdict = "nothing wrong" if findings.sound else "look at the findings above"
    typer.secho(verdict, fg="green" if findings.sound else "yellow")


def _counts(split: str, images: int, labels: dict[str, int]) -> None:
    shown = [f"{name} {count}" for name, count in list(labels.items())[:20]]
    more = f" and {len(labels) - 20} more" if len(labels) > len(shown) else ""
    typer.echo(f"{split}: {images} images ({', '.join(shown)}{more})")


def _list(what: str, found: list[str]) -> None:
    typer.echo(f"{what}: {len(found)}")
    for line in found[:EXAMPLES]:
        typer.echo(f"  {visible(line)}")
    if len(found) > EXAMPLES:
        typer.echo(f"  … and {len(found) - EXAMPLES} more (--json lists all)")
