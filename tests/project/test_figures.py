"""Figures in the documents against the records of their measurements.

A figure carries a comment `<!-- record.json path.in.it -->`, with `* 100` for per cent;
the value there, in docs/results/, written with as many decimals, must be the figure.
"""

import argparse
import json
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench.goals import best
from bench.peers.report import OURS, find, ratios

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBER = r"([\d,]+(?:\.\d+)?)"
# 1,234.5 or **1.2**, a unit, and the comment that says whence
FIGURE = re.compile(NUMBER + r"[^\d|\n]*?<!-- (\S+\.json) (\S+)( \* 100)? -->")
MARKER = re.compile(r"<!-- \S+\.json")


def prose(page: Path) -> str:
    """The page without its blocks of code, which may show what a marker looks like."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


FIGURES = [
    (page.name, *found) for page in PAGES for found in FIGURE.findall(prose(page))
]


def value_at(record: Any, path: str) -> Any:
    """The value at a dotted path; list places are numbers."""
    for key in path.split("."):
        record = record[int(key)] if isinstance(record, list) else record[key]
    return record


def as_written(value: float, figure: str) -> str:
    """The value with the decimals and the thousands separators of the figure."""
    decimals = len(figure.partition(".")[2])
    return f"{value:,.{decimals}f}" if "," in figure else f"{value:.{decimals}f}"


@pytest.mark.parametrize(
    ("page", "figure", "record", "path", "percent"),
    FIGURES,
    ids=[f"{page}:{record}:{path}" for page, _, record, path, _ in FIGURES],
)
def test_a_figure_is_what_was_measured(page, figure, record, path, percent):
    """Nobody has to remember the documents when something is measured again."""
    value = value_at(json.loads((RESULTS / record).read_text()), path)

    assert as_written(value * (100 if percent else 1), figure) == figure


def series_of_photos() -> list[float]:
    """Ours in fp32 by the best tuned peer, of every series with the usual model."""
    found = []
    for path in sorted(RESULTS.rglob("peers-photos*.json")):
        record = json.loads(path.read_text())
        if record.get("model", "imagenet") == "imagenet":
            rows = record["rows"]
            ours = ratios(find(rows, OURS, "fp32"), best(rows, "tuned"))
            found.append(median(ours))
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/figures.md"])
def test_all_series_of_photos_are_summed_up(page):
    """Also those in which a peer was ahead."""
    each = series_of_photos()
    text = " ".join((ROOT / page).read_text().split())
    words = {14: "fourteen", 15: "fifteen", 16: "sixteen", 3: "three", 4: "four"}

    assert f"over {words[len(each)]} series" in text
    assert f"{min(each):.2f} to {max(each):.2f} times as fast" in text
    assert f"{median(each):.2f} in the median" in text
    if page == "README.md":
        faster = sum(ratio > 1 for ratio in each)
        assert f"and faster in {words[faster]}." in text


def test_every_marker_has_its_figure():
    """A marker that the pattern does not read would be a figure that nobody checks."""
    marked = sum(len(MARKER.findall(prose(page))) for page in PAGES)

    assert len(FIGURES) == marked


@pytest.mark.parametrize(
    ("value", "figure", "right"),
    [
        (1.2345, "1.23", True),
        (1.2345, "1.24", False),
        (12345.6, "12,346", True),
        (253.4, "253", True),
        (0.5, "0.51", False),
    ],
)
def test_a_figure_has_its_own_precision(value, figure, right):
    """The check above can fail."""
    assert (as_written(value, figure) == figure) is right


def table_of(page: str) -> list[str]:
    """The rows of the page's table of figures."""
    text = (ROOT / page).read_text()
    table = text.partition("<!-- figures -->")[2].partition("<!-- /figures -->")[0]
    return [line for line in table.splitlines() if line.startswith("|")][2:]


TABLES = ["README.md", "docs/figures.md"]


@pytest.mark.parametrize("page", TABLES)
def test_every_row_of_a_table_is_measured_or_says_that_it_is_not(page):
    """No figure without a record."""
    rows = table_of(page)

    bare = [r for r in rows if "not yet measured" not in r and not FIGURE.search(r)]

    assert rows
    assert bare == []


MEASURING = re.findall(
    r"`python -m (bench\.\w+)([^`]*)`",
    "\n".join(row for page in TABLES for row in table_of(page)),
)


@pytest.mark.parametrize(("module", "options"), sorted(set(MEASURING)))
def test_a_command_of_a_table_has_all_the_options_it_needs(
    module, options, monkeypatch
):
    """It is parsed, and ended before it measures anything."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(parser, arguments=None):
        parse(parser, arguments)
        raise InterruptedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    monkeypatch.setattr(sys, "argv", [module, *shlex.split(options)])

    program = import_module(module)
    if hasattr(program, "__path__"):  # a package
        program = import_module(f"{module}.__main__")
    with pytest.raises(InterruptedError):
        program.main()


@pytest.mark.parametrize("record", sorted({found[2] for found in FIGURES}))
def test_a_record_keeps_its_circumstances(record):
    """A number that cannot be measured again is an anecdote."""
    kept = json.loads((RESULTS / record).read_text())
    named = ("commit", "machine", "versions", "command")

    for each in measurements(kept):
        assert [name for name in named if not each.get(name)] == []


def measurements(kept: Any) -> list[Any]:
    """A record, or where its networks were measured one by one, what each keeps."""
    cells = kept.get("networks", {})
    apart = [c["circumstances"] for c in cells.values() if "circumstances" in c]
    return apart or [kept]


@pytest.mark.parametrize(
    "record",
    sorted(RESULTS.rglob("*.json")),
    ids=lambda path: str(path.relative_to(RESULTS)),
)
def test_a_record_names_no_folder_of_the_machine_that_made_it(record):
    """Its command is for others to repeat: FILE and FOLDER stand for what was given."""
    text = record.read_text()

    assert not re.search(r"[\s\"=]/(tmp|home|root|work|Users|mnt)/", text)
