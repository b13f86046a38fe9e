"""`linnaeus networks`, and the page of docs that it writes."""

import json

import pytest
import typer
from typer.testing import CliRunner

from training.commands.networks import HEADINGS, command, markdown, millions
from training.networks import table


def invoke(*arguments: str):
    """The command as the terminal calls it."""
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, arguments)


def test_the_table_shows_every_network_in_full():
    """Also through a pipe, where there is no terminal to fit into."""
    shown = invoke()

    assert shown.exit_code == 0
    assert all(row.name in shown.output for row in table())
    assert "none published" in shown.output


def test_nothing_is_cut_off_on_a_common_terminal(monkeypatch):
    """80 columns are fewer than the table would like; sizes stay in one piece."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a terminal, so that its width counts
    monkeypatch.setenv("COLUMNS", "80")

    shown = invoke().output

    assert "…" not in shown
    assert all(row.name in shown for row in table())
    assert shown.count(" 224x224x3 ") == sum(row.image_size == 224 for row in table())


@pytest.mark.parametrize("family", ["ResNet", "resnet"])
def test_one_family_alone(family):
    """ResNet is not PreActResNet."""
    shown = json.loads(invoke("--family", family, "--json").output)

    assert {row["family"] for row in shown} == {"ResNet"}
    assert len(shown) == 10


def test_json_has_all_digits():
    """For scripts: what the cards say, but the function."""
    (lenet,) = json.loads(invoke("--family", "LeNet", "--json").output)

    assert (lenet["parameters"], lenet["macs"]) == (61_706, 416_520)
    assert "build" not in lenet


def test_an_unknown_family_is_answered_with_the_known_ones():
    """Exit code 2, as for any mistyped option."""
    shown = invoke("--family", "Transformer")

    assert shown.exit_code == 2
    assert "Transformer" in shown.output
    assert shown.output.count("DenseNet") == 1


def test_one_form_of_the_table_at_a_time():
    """Exit code 2, and both options by name."""
    shown = invoke("--json", "--markdown")

    assert shown.exit_code == 2
    assert "--json and --markdown" in shown.output


@pytest.mark.parametrize(
    ("count", "written"),
    [(61_706, "0.06"), (7_978_856, "7.98"), (15_470_264_320, "15,470")],
)
def test_counts_are_written_in_millions(count, written):
    """Three digits that say something."""
    assert millions(count) == written


def test_the_page_of_docs_holds_the_table_of_today(repository):
    """Whoever adds a network runs `linnaeus networks --markdown` and pastes it."""
    page = (repository / "docs" / "networks.md").read_text(encoding="utf-8")

    assert markdown(table()) in page
    assert all(heading in page for heading in HEADINGS)
    assert all(f"**{row.family}**" in page for row in table())
