"""settings → **a running service**, until a signal."""

import os
from pathlib import Path
from typing import Annotated

import typer

from classifier.device import DeviceChoice
from classifier.variant import PrecisionChoice
from service.engine.engine import LaneEngine
from service.errors import EngineFailedError
from service.server import serve
from service.settings import load_settings


def command(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [LINNAEUS_HOST]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes a free one. [LINNAEUS_PORT]")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder of bundles. [LINNAEUS_MODELS]")
    ] = None,
    load: Annotated[
        str | None, typer.Option(help="Bundles to load: 'a,b/2'. [LINNAEUS_LOAD]")
    ] = None,
    device: Annotated[
        DeviceChoice | None, typer.Option(help="[LINNAEUS_DEVICE]")
    ] = None,
    precision: Annotated[
        PrecisionChoice | None,
        typer.Option(help="[LINNAEUS_PRECISION]"),
    ] = None,
) -> None:
    """Serve the bundles behind REST, with a page at / and documentation at /docs.

    Command-line options take precedence over environment variables, which are named in
    brackets. Every other setting is a variable LINNAEUS_…, listed in docs/settings.md.
    """
    given = {
        "host": host,
        "port": port,
        "models": models,
        "load": load,
        "device": device,
        "precision": precision,
    }
    settings = load_settings(**{k: v for k, v in given.items() if v is not None})
    try:
        serve(settings, LaneEngine(settings))
    except EngineFailedError as error:
        typer.secho(f"linnaeus: {error}", fg="red", err=True)
        # an orderly end of Python would crash under the threads that hang
        os._exit(1)
