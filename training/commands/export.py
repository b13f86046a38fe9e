"""`linnaeus export`: finished run → **bundle**, with rules, gates, figures and card."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished `linnaeus train`.")],
    data: Annotated[
        Path, typer.Option(envvar="LINNAEUS_DATA", help="Folder of the data sets.")
    ] = Path("../shared/data"),
    models: Annotated[
        Path, typer.Option(envvar="LINNAEUS_MODELS", help="Where the bundle goes.")
    ] = Path("models"),
    name: Annotated[
        str | None, typer.Option(help="Name of the bundle; default that of the config.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help=r"TOML whose \[bundle] is used in place of the run's."),
    ] = None,
    positive: Annotated[
        list[str] | None,
        typer.Option(
            help="Make a yes/no bundle of a multi-class run: the label that means yes; "
            "repeatable, needs --name."
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="JSON file for the figures of the test split.")
    ] = None,
) -> None:
    """Make a bundle of a trained run; the test split is opened here, once."""
    from training.bundling.from_run import export_run  # noqa: PLC0415 - slow to load
    from training.bundling.record import record_of  # noqa: PLC0415
    from training.commands.progress import say_steps  # noqa: PLC0415
    from training.configs.config import read_config  # noqa: PLC0415
    from training.files import try_file  # noqa: PLC0415
    from training.provenance import command_line, write_results  # noqa: PLC0415

    say_steps()
    if results is not None:
        try_file(results)
    rules = read_config(config).bundle if config is not None else None
    made = export_run(
        run,
        data=data,
        models=models,
        name=name,
        rules=rules,
        positive=tuple(positive or ()),
    )
    if results is not None:
        write_results(results, record_of(run, made, command_line()))
    typer.echo(f"wrote {made.folder}; its card: {made.folder / 'card.md'}")
