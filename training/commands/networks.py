"""`linnaeus networks`: every architecture → **a table** to choose from."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from training.networks import NetworkCard

Rows = tuple["NetworkCard", ...]


def command(
    family: Annotated[
        str | None, typer.Option(help="Only this family, such as ResNet.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with all digits.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of docs/networks.md.")
    ] = False,
) -> None:
    """List the networks: parameters, multiply-accumulates, paper, accuracy."""
    if as_json and as_markdown:
        raise typer.BadParameter("--json and --markdown exclude one another")
    rows = select(family)
    if as_json:
        typer.echo(json.dumps([describe(row) for row in rows], indent=2))
    elif as_markdown:
        typer.echo(markdown(rows))
    else:
        print_table(rows)


def select(family: str | None) -> Rows:
    """All cards, or those of one family (case and hyphens do not matter).

    Raises:
        BadParameter: no such family; names those that there are.
    """
    from training.networks import table  # noqa: PLC0415 - torch is slow to load
    from training.networks.card import plain  # noqa: PLC0415

    if family is None:
        return table()
    rows = tuple(row for row in table() if plain(row.family) == plain(family))
    if not rows:
        families = ", ".join(dict.fromkeys(row.family for row in table()))
        raise typer.BadParameter(f"{family!r} is none of {families}")
    return rows


def describe(row: "NetworkCard") -> dict[str, Any]:
    """A card as JSON holds it: everything but the function that builds."""
    return {key: value for key, value in asdict(row).items() if key != "build"}


def cells(row: "NetworkCard") -> tuple[str, ...]:
    """A card as a person reads it."""
    accuracy = (
        "none published" if row.accuracy is None else f"{row.accuracy:g} ({row.source})"
    )
    return (
        row.name,
        row.dataset,
        f"{row.image_size}x{row.image_size}x{row.in_channels}",
        millions(row.parameters),
        millions(row.macs),
        accuracy,
        f"{row.paper}, {row.year}",
    )


def millions(count: int) -> str:
    """In millions, with three digits that say something."""
    value = count / 1e6
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"  # noqa: PLR2004


PIPE_COLUMNS = 180
HEADINGS = (
    "name",
    "form for",
    "image",
    "parameters (M)",
    "MACs (M)",
    "published top-1, % (by)",
    "paper",
)


def markdown(rows: Rows) -> str:
    """The table as docs/networks.md holds it."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    lines += [("---", "---", "---", "---:", "---:", "---", "---")]
    lines += [(f"`{first}`", *others) for first, *others in map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def print_table(rows: Rows) -> None:
    """On the terminal, family by family."""
    from rich.console import Console  # noqa: PLC0415 - JSON needs no table
    from rich.table import Table  # noqa: PLC0415

    # A pipe has no width of its own; there nothing may be cut off.
    console = Console() if Console().is_terminal else Console(width=PIPE_COLUMNS)
    shown = Table(title="linnaeus networks")
    for heading in HEADINGS:
        right = heading.endswith("(M)")
        shown.add_column(
            heading,
            justify="right" if right else "left",
            no_wrap=heading in {"name", "image"},
            overflow="fold",
        )
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        last = following is None or following.family != row.family
        shown.add_row(*cells(row), end_section=last)
    console.print(shown)
