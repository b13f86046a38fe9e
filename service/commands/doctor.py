"""host, bundles → **findings**: what is really used, what to do about trouble."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from classifier.bundle import list_bundles, load_bundle
from classifier.device import DeviceChoice, choose_device
from classifier.errors import BundleError, ClassifierError
from classifier.golden import replay
from classifier.session import Device, Session
from service.bundles import find_bundles
from service.catalog import choose_default
from service.commands import DEVICE_HELP
from service.commands.host import (
    Finding,
    connections,
    int8,
    machine,
    memory,
    packages,
)
from service.engine.models import EngineModel, load_model
from service.errors import SettingsError
from service.settings import Settings, load_settings

SUBJECT_WIDTH = len("imagenet/1 fp32")  # a longer one moves its line to the right
MOST_WIDTH = 26  # and then has lines, to leave room for what is said of it
MARKS = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]"}


def command(
    models: Annotated[
        Path, typer.Option(envvar="LINNAEUS_MODELS", help="Folder of bundles.")
    ] = Path("models"),
    device: Annotated[
        DeviceChoice, typer.Option(envvar="LINNAEUS_DEVICE", help=DEVICE_HELP)
    ] = "auto",
) -> None:
    """Examine device, threads and bundles. Exit code 1 if there is a problem."""
    console = Console(emoji=False)
    problems = 0
    for finding in examine(models, device):
        # Each at once: a bundle may take more memory than there is, which ends this.
        console.print(as_row(finding))
        problems += finding.level == "problem"
    if problems:
        plural = "" if problems == 1 else "s"
        typer.secho(f"{problems} problem{plural} found", fg="red", err=True)
        raise typer.Exit(1)


def as_row(finding: Finding) -> Table:
    """A finding, with what to do about it below; nothing is cut off."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=len("problem"))
    table.add_column(overflow="fold", min_width=SUBJECT_WIDTH, max_width=MOST_WIDTH)
    table.add_column(overflow="fold")
    mark = MARKS.get(finding.level, "[red]problem[/red]")
    found = escape(finding.text)
    if finding.advice:
        found += f"\n[bold]→ {escape(finding.advice)}[/bold]"
    table.add_row(mark, escape(finding.subject), found)
    return table


def examine(models: Path, device: DeviceChoice) -> Iterator[Finding]:
    """Every finding, the machine first."""
    yield from machine()
    try:
        settings = load_settings(models=models, device=device)
    except SettingsError as error:
        yield Finding("problem", "settings", str(error), "see docs/settings.md")
        settings = None
    if settings is not None:
        yield connections(settings)
    yield from packages()
    try:
        chosen, reason = choose_device(device)
    except ClassifierError as error:
        yield Finding(
            "problem",
            "device",
            str(error),
            "install driver and the extra 'gpu', or set LINNAEUS_DEVICE=auto",
        )
        return
    yield Finding("ok", "device", f"{chosen}: {reason}")
    if chosen == "cpu":
        yield int8()
    if settings is None:
        return
    yield memory(settings, chosen)
    yield from _bundles(models, chosen, settings)


def _bundles(models: Path, device: Device, settings: Settings) -> Iterator[Finding]:
    """Of the folder, and of every bundle in it."""
    try:
        bundles = list_bundles(models)
    except BundleError as error:
        advice = "let the user that serves read it, or set LINNAEUS_MODELS"
        yield Finding("problem", "bundles", str(error), advice)
        return
    if bundles:
        yield from _served(settings)
    for name, numbers in bundles.items():
        for number in numbers:
            yield from _bundle(models / name, number, device, settings)
    if not bundles:
        yield Finding(
            "problem",
            "bundles",
            f"{models} holds none" if models.is_dir() else f"{models} is no folder",
            "set LINNAEUS_MODELS, or build one: linnaeus pretrained efficientnet-lite0",
        )


def _served(settings: Settings) -> Iterator[Finding]:
    """Whether `load` and `default_model` name bundles that are there."""
    try:
        names = {bundle.manifest.name for bundle in find_bundles(settings)}
        choose_default(sorted(names), settings.default_model)
    except ClassifierError as error:
        advice = "set LINNAEUS_LOAD to what is there"
        yield Finding("problem", "load", str(error), advice)
    except SettingsError as error:
        advice = "set it to one of these, or LINNAEUS_LOAD to more"
        yield Finding("problem", "default model", str(error), advice)


def _bundle(
    folder: Path, number: int, device: Device, settings: Settings
) -> Iterator[Finding]:
    """Golden replay of every graph, and how the chosen one would be served."""
    subject = f"{folder.name}/{number}"
    try:
        bundle = load_bundle(folder, number)
        golden = bundle.read_golden()
    except ClassifierError as error:
        yield Finding("problem", subject, str(error), "restore or rebuild the bundle")
        return
    for variant in bundle.manifest.graphs:
        try:
            graph = bundle.read_graph(variant)
            session = Session.load(graph, device=device)
            off = replay(golden, session, variant)
        except ClassifierError as error:
            advice = "serve another precision (LINNAEUS_PRECISION), or rebuild it"
            yield Finding(
                "problem", f"{subject} {variant.precision}", str(error), advice
            )
            continue
        text = (
            f"golden replay off by {off:.2g} (allowed {variant.golden_tolerance:.2g}) "
            f"on {session.providers[0]}"
        )
        yield Finding("ok", f"{subject} {variant.precision}", text)
    try:
        yield _arrangement(subject, load_model(bundle, settings, device=device))
    except ClassifierError as error:
        yield Finding("problem", subject, str(error), "see its graphs above")


def _arrangement(subject: str, model: EngineModel) -> Finding:
    arranged = model.arrangement
    crowd, lone = arranged.crowd, arranged.lone
    lanes, run, alone = (
        f"{n} {noun}" + ("" if n == 1 else "s")
        for n, noun in (
            (arranged.lanes, "lane"),
            (crowd.threads, "thread"),
            (lone.threads, "thread"),
        )
    )
    where = " (tiny images: on the event loop)" if model.inline else ""
    text = (
        f"{model.variant.precision} in {lanes}{where}, each a run of {run} with up "
        f"to {crowd.batch} images, {1e3 * crowd.cost_s:.3g} ms an image; "
        f"a lone image on {alone}, {1e3 * lone.cost_s:.3g} ms"
    )
    return Finding("ok", subject, text)
