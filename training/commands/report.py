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
    from training.reports.report import (  # noqa: PLC0415 - slow to load
        default_page,
        write_report,
    )

    target = out or default_page(path)
    write_report(path, target)
    typer.echo(f"wrote {target}")
