"""`linnaeus report`: run, evaluation or bundle → **one HTML page**."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    path: Annotated[
        Path, typer.Argument(help="Folder of a run, an evaluation or a bundle.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page; default report.html in the folder of a run or evaluation, "
            "runs/report-NAME-VERSION.html for a bundle."
        ),
    ] = None,
) -> None:
    """Write one self-contained page: figures, plots, worst mistakes, origin."""
    from classifier.errors import ClassifierError  # noqa: PLC0415 - slow to load
    from training.errors import TrainingError  # noqa: PLC0415
    from training.reports.report import default_page, write_report  # noqa: PLC0415

    try:
        target = out or default_page(path)
        write_report(path, target)
    except (TrainingError, ClassifierError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"wrote {target}")
