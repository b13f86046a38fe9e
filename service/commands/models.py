"""models/ → **a table** of the bundles in it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from classifier.bundle import list_versions, load_bundle
from classifier.errors import BundleError
from classifier.manifest import GraphVariant, Manifest


def command(
    models: Annotated[
        Path, typer.Option(envvar="LINNAEUS_MODELS", help="Folder of bundles.")
    ] = Path("models"),
) -> None:
    """List every bundle and version, with its task, labels, graphs and accuracy."""
    if not models.is_dir():
        raise BundleError(f"{models} is no folder; --models names the one with bundles")
    table = Table(title=escape(str(models)))
    for column in ("model", "version", "task", "labels", "input", "graphs", "measured"):
        table.add_column(column)
    for folder in sorted(models.iterdir()):
        for version in list_versions(folder):
            try:
                manifest = load_bundle(folder, version).manifest
            except BundleError as error:
                problem = f"[red]{escape(str(error))}[/red]"
                table.add_row(escape(folder.name), str(version), problem)
            else:
                table.add_row(*map(escape, _row(manifest)))
    Console().print(table)


def _row(manifest: Manifest) -> list[str]:
    height, width, channels = manifest.preprocess.shape
    return [
        manifest.name,
        str(manifest.version),
        manifest.task,
        str(len(manifest.labels)),
        f"{width}x{height}x{channels}",
        "\n".join(graph.precision for graph in manifest.graphs),
        "\n".join(_measured(graph) for graph in manifest.graphs),
    ]


def _measured(graph: GraphVariant) -> str:
    """The first values of the first metric set, or that there is none."""
    if not graph.metrics:
        return "not measured"
    measured = graph.metrics[0]
    values = list(measured.values.items())[:2]
    listed = ", ".join(f"{name} {value:.4g}" for name, value in values)
    return f"{listed} ({measured.dataset} {measured.split}, n={measured.n})"
