"""settings → **a running service**, until a signal."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from classifier.device import DeviceChoice
from classifier.variant import PrecisionChoice
from service.commands import DEVICE_HELP, PRECISION_HELP
from service.engine.engine import LaneEngine
from service.errors import EngineFailedError
from service.server import serve
from service.settings import PREFIX, Settings, load_settings


def known(setting: str) -> str:
    """Its variable and default; typer would show neither, as the value is not its."""
    default = Settings.model_fields[setting].default or "all"
    return escape(f"[env var: {PREFIX}{setting.upper()}; default: {default}]")


def command(
    host: Annotated[
        str | None, typer.Option(help=f"Address to listen on. {known('host')}")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help=f"Port; 0 takes a free one. {known('port')}")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help=f"Folder of bundles. {known('models')}")
    ] = None,
    load: Annotated[
        str | None, typer.Option(help=f"Bundles to load: 'a,b/2'. {known('load')}")
    ] = None,
    device: Annotated[
        DeviceChoice | None, typer.Option(help=f"{DEVICE_HELP} {known('device')}")
    ] = None,
    precision: Annotated[
        PrecisionChoice | None,
        typer.Option(help=f"{PRECISION_HELP} {known('precision')}"),
    ] = None,
) -> None:
    """Serve the bundles behind REST, with a page at / and documentation at /docs.

    Options take precedence over variables of the environment, named in brackets.

    All other settings are variables LINNAEUS_…, listed in docs/settings.md.
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
