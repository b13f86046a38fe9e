"""`linnaeus pretrained`: an ImageNet bundle from published weights."""

from pathlib import Path
from typing import Annotated

import typer

from training.errors import ConfigError

NAMES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


def default_name(model: str) -> str:
    """`imagenet` for the smallest, which is the one that comes with the checkout."""
    return "imagenet" if model == NAMES[0] else model


def command(
    model: Annotated[
        str, typer.Argument(help=f"One of: {', '.join(NAMES)}.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the bundle.", show_default="imagenet for lite0"),
    ] = None,
    models: Annotated[
        Path, typer.Option(envvar="LINNAEUS_MODELS", help="Folder of bundles.")
    ] = Path("models"),
    data: Annotated[
        Path,
        typer.Option(
            envvar="LINNAEUS_DATA",
            help="Folder with the photos for int8 ranges, gate and golden examples.",
        ),
    ] = Path("../shared/data"),
) -> None:
    """Build an ImageNet bundle from published EfficientNet-Lite weights.

    Exports fp32, quantizes int8 behind an accuracy gate, proves both, and writes the
    next version of the bundle. Takes a few minutes.
    """
    if model not in NAMES:
        raise ConfigError(f"unknown model {model!r}; there are: {', '.join(NAMES)}")
    # needs torch from here
    from training.pretrained.imagenet import build_imagenet_bundle  # noqa: PLC0415

    folder = build_imagenet_bundle(
        model, name=name or default_name(model), data=data, models=models
    )
    typer.echo(f"wrote {folder}")
    typer.echo((folder / "card.md").read_text(encoding="utf-8"))
