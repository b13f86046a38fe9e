"""models/ → **a table** of the bundles in it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from classifier.bundle import list_bundles, load_bundle
from classifier.errors import BundleError
from classifier.manifest import GraphVariant, Manifest
from service.bundles import check_no_link


def command(
    models: Annotated[
        Path, typer.Option(envvar="LINNAEUS_MODELS", help="Folder of bundles.")
    ] = Path("models"),
) -> None:
    """List every bundle and version, with its task, labels, graphs and accuracy."""
    if not models.is_dir():
        raise BundleError(f"{models} is no folder; --models names the one with bundles")
    table, broken = Table(box=SIMPLE), []
    for column in ("model", "task", "labels", "input", "graphs and what they reach"):
        table.add_column(column, overflow="fold")
    for name, versions in list_bundles(models).items():
        for version in versions:
            try:
                path = models / name / str(version)
                bundle = load_bundle(path)
                check_no_link(path, bundle)
            except BundleError as error:
                broken.append(str(error))
            else:
                table.add_row(*map(escape, _row(bundle.manifest)))
    console = Console(emoji=False)
    if table.rows:
        console.print(table)
    for problem in broken:
        console.print(f"[red]{escape(problem)}[/red]", soft_wrap=True)
    if not (table.rows or broken):
        console.print(escape(f"{models} holds no bundle"))


def _row(manifest: Manifest) -> list[str]:
    height, width, channels = manifest.preprocess.shape
    return [
        manifest.full_name,
        manifest.task,
        str(len(manifest.labels)),
        f"{width}x{height}x{channels}",
        "\n".join(f"{g.precision}: {_measured(g)}" for g in manifest.graphs),
    ]


def _measured(graph: GraphVariant) -> str:
    """The first values of the first metric set, or that there is none."""
    if not graph.metrics:
        return "not measured"
    measured = graph.metrics[0]
    values = list(measured.values.items())[:2]
    listed = ", ".join(f"{name} {value:.4g}" for name, value in values)
    return f"{listed} ({measured.dataset} {measured.split}, n={measured.n})"
