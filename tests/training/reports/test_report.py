"""The page on a run says what was done, on what, and how it went."""

import html
import re
import tomllib
from pathlib import Path

import pytest

from tests.synthetic import make_bundle
from tests.training.loop.runs import CONFIG
from training.configs.config import parse_config
from training.errors import CheckpointError
from training.loop.checkpoint import write_checkpoint
from training.reports.report import render

LOG = """step,epoch,train_loss,validation_loss,seconds
123456,1,1.4387431144714355,,0.000123456
246912,2,0.5,nan,1234.5
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a finished training leaves, but for its weights."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "log.csv").write_text(LOG)
    config = parse_config(tomllib.loads(CONFIG), "tiny.toml")
    saved = {
        "command": "linnaeus train <tiny>.toml",
        "commit": "0123456789ab",
        "machine": "2 x Zen 5",
        "gpu": None,
        "versions": {"torch": "2.13.0", "numpy": "2.4.0"},
        "config": config.model_dump(mode="json"),
        "seconds": 12.345678,
        "epochs": 4.0,
        "precision": "fp32",
        "scores": {"accuracy": 0.987654321},
    }
    write_checkpoint(folder / "final.pt", saved)
    return folder


def facts(page: str) -> dict[str, str]:
    """What the page's lists say."""
    found = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    return {key: html.unescape(value) for key, value in found}


def test_a_page_says_where_a_run_comes_from(run: Path):
    """By which command and commit, where, with which versions and from which config."""
    found = facts(render(run))

    assert found["command"] == "linnaeus train <tiny>.toml"
    assert found["commit"] == "0123456789ab"
    assert (found["machine"], found["gpu"]) == ("2 x Zen 5", "none")
    assert found["versions"] == "torch = 2.13.0, numpy = 2.4.0"
    assert (found["seconds"], found["epochs"]) == ("12.35", "4")
    assert found["validation"] == "accuracy = 0.9877"
    assert (found["task"], found["network"]) == ("multiclass", "name = lenet5")
    assert "kind = muon, learning_rate = 0.02" in found["optimizer"]
    assert "mean = [0.2]" in found["data"]


def test_a_page_has_no_more_digits_than_are_read(run: Path):
    """Four; the table in the run's folder has them all. Counts are whole."""
    page = render(run)

    rows = re.findall("<tr>(<td>.*?)</tr>", page)
    assert [re.findall("<td>(.*?)</td>", row) for row in rows] == [
        ["123456", "1", "1.439", "", "0.0001235"],
        ["246912", "2", "0.5", "nan", "1234"],
    ]


def test_a_page_on_a_run_that_is_not_finished_has_its_epochs(run: Path):
    """What it comes from is written with the weights, at its end."""
    (run / "final.pt").unlink()

    page = render(run)

    assert "1.439" in page
    assert facts(page) == {}


def test_a_damaged_run_is_named(run: Path):
    """And not passed over: its page would tell less than it could."""
    (run / "final.pt").write_bytes(b"cut off")

    with pytest.raises(CheckpointError, match=r"tiny/final\.pt"):
        render(run)


def test_a_page_on_a_bundle_has_its_card(tmp_path: Path):
    """Intervals and rows of classes stand there alone; a bundle works without it."""
    card = make_bundle(tmp_path, "colors") / "card.md"
    card.write_text(
        "# colors\n\n| recall | 95 % |\n| --- | ---: |\n| 0.9 | 0.8 to 1 |\n"
    )

    page = render(card.parent)

    assert "<h3>colors</h3>" in page
    assert '<td style="text-align:right">0.8 to 1</td>' in page

    card.unlink()

    assert "0.8 to 1" not in render(card.parent)


def test_whatever_a_card_holds_does_nothing_to_its_page(tmp_path: Path):
    """A bundle may come from anybody; the page is one file and asks no network."""
    card = make_bundle(tmp_path, "colors") / "card.md"
    card.write_text(
        "<script>alert(1)</script> **<b>bold</b>** [go](javascript:alert(2))\n\n"
        "![here](https://example.org/seen.png) {{ title }} &lt;i&gt;\n"
    )

    page = render(card.parent)

    assert "<script" not in page
    assert "<strong>&lt;b&gt;bold&lt;/b&gt;</strong>" in page
    assert 'href="javascript' not in page
    assert "example.org" not in page
    assert "{{ title }} &lt;i&gt;" in page
