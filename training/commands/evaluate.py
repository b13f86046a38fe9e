"""`linnaeus evaluate`: bundle + data → **figures, plots and mistakes**."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    bundle: Annotated[Path, typer.Argument(help="models/NAME or models/NAME/VERSION.")],
    data: Annotated[
        Path, typer.Argument(help="Folder, archive or CSV of labelled images.")
    ],
    split: Annotated[
        str, typer.Option(help="train, validation, calibration, test, or all.")
    ] = "test",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16 or int8.")] = "auto",
    positive: Annotated[
        list[str] | None,
        typer.Option(help="Labels of the data that count as the positive one."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for evaluation.json, plots and mistakes.")
    ] = Path("runs/evaluation"),
    results: Annotated[
        Path | None, typer.Option(help="JSON file for the figures alone.")
    ] = None,
) -> None:
    """Measure a bundle on labelled images, as it is served."""
    from classifier import Classifier  # noqa: PLC0415 - the help should be instant
    from training.commands.progress import say_steps  # noqa: PLC0415
    from training.errors import DataError  # noqa: PLC0415
    from training.evaluation.evaluate import evaluate  # noqa: PLC0415
    from training.evaluation.labelled import open_labelled  # noqa: PLC0415
    from training.files import try_file, try_folder  # noqa: PLC0415
    from training.reports.evaluation_files import (  # noqa: PLC0415
        print_table,
        write_evaluation,
    )

    if out.resolve().is_relative_to(data.resolve()):
        # its plots are images, and would be those of a label `runs` from then on
        raise DataError(f"{out} lies inside the data; name another folder with --out")
    say_steps()
    classifier = Classifier.load(bundle, precision=precision)
    dataset, part = open_labelled(
        data, classifier.manifest, split=split, positive=tuple(positive or ())
    )
    try_folder(out)
    if results is not None:
        try_file(results)
    found = evaluate(classifier, dataset, part)
    write_evaluation(found, classifier, part, out, results=results)
    print_table(found, precision=classifier.variant.precision)
    typer.echo(f"figures, plots and mistakes in {out}")
