"""`linnaeus optimize`: bundle + data → **next version** with smaller graphs."""

from pathlib import Path
from typing import Annotated

import typer

from training.configs.sections import DEFAULT_VALIDATION


def command(
    bundle: Annotated[Path, typer.Argument(help="models/NAME or models/NAME/VERSION.")],
    data: Annotated[
        Path,
        typer.Argument(
            help="Labelled images: int8 ranges, gate, figures. With --config, the "
            "folder of the data sets."
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML of the training: its images are split as they were then, so "
            "that none of validation was learned from."
        ),
    ] = None,
    int8: Annotated[bool, typer.Option(help="Try an int8 graph.")] = True,
    fp16: Annotated[bool, typer.Option(help="Add an fp16 graph, for GPUs.")] = False,
    positive: Annotated[
        list[str] | None,
        typer.Option(help="Labels of the data that count as the positive one."),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Validation images, a share of train or a number, where the data has "
            "none of its own and there is no --config.",
            min=0,
            show_default=str(DEFAULT_VALIDATION),
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of that cut.", min=0, show_default="0")
    ] = None,
) -> None:
    """Write the bundle's next version with smaller graphs that lose next to nothing.

    An int8 graph is kept only where it loses at most one point on validation images,
    of accuracy and of F1 where answers are yes or no, and decides as fp32 in 97 cases
    of 100; else layers stay in fp32, or all of it. What fp16 reaches is on the card.
    A graph of the bundle that is not made anew stays in the next version.
    """
    from training.bundling.next_version import (  # noqa: PLC0415 - slow to load
        DataSource,
        optimize_bundle,
    )
    from training.commands.progress import say_steps  # noqa: PLC0415
    from training.configs.config import read_config  # noqa: PLC0415
    from training.errors import ConfigError  # noqa: PLC0415

    say_steps()
    if config is not None and (validation, seed) != (None, None):
        raise ConfigError(
            "--config says how the data is cut; give it without --validation and --seed"
        )
    images = DataSource(
        data,
        None if config is None else read_config(config),
        tuple(positive or ()),
        DEFAULT_VALIDATION if validation is None else validation,
        seed or 0,
    )
    folder = optimize_bundle(bundle, images, int8=int8, fp16=fp16)
    typer.echo(f"wrote {folder}; what each graph reached: {folder / 'card.md'}")
