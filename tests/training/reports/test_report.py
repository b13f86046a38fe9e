"""The page on a run says what was done, on what, and how it went."""

import html
import json
import re
import tomllib
from pathlib import Path

import pytest

from classifier.errors import BundleError
from classifier.manifest import Manifest, Task
from tests.powerless import powerless
from tests.synthetic import make_bundle, manifest_fields
from tests.training.loop.runs import CONFIG
from training.configs.config import parse_config
from training.errors import CheckpointError, DataError
from training.loop.checkpoint import write_checkpoint
from training.reports.card import CAPTIONS
from training.reports.report import (
    default_page,
    graph_tables,
    labels_table,
    render,
    write_report,
    written,
)

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
        "sizes": {"train": 48, "validation": 12, "test": 0},
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
    assert found["images"] == "train = 48, validation = 12, test = 0"
    assert (found["task"], found["network"]) == ("multiclass", "name = lenet5")
    assert "kind = muon, learning_rate = 0.02" in found["optimizer"]
    assert "mean = [0.2]" in found["data"]


def test_a_page_has_no_more_digits_than_are_read(run: Path):
    """Four; the table in the run's folder has them all. Counts are whole."""
    page = render(run)

    assert rows(page, "Epochs")[1:] == [
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

    write_checkpoint(run / "final.pt", {"optimizers": []})  # as `last.pt` has them

    with pytest.raises(CheckpointError, match=r"tiny/final\.pt is a checkpoint to go"):
        render(run)


@pytest.mark.parametrize("name", ["evaluation.json", "transfer.json"])
def test_a_record_nested_too_deeply_is_named(run: Path, name: str):
    """Nobody of ours wrote it so."""
    (run / name).write_text("[" * 100_000)

    with pytest.raises(DataError, match=f"cannot read .*tiny/{name}: "):
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


def test_a_card_that_is_no_text_is_named(tmp_path: Path):
    """Somebody has changed it with an editor of another encoding."""
    card = make_bundle(tmp_path, "colors") / "card.md"
    card.write_bytes("für Farben".encode("latin-1"))

    with pytest.raises(DataError, match=r"colors/1/card\.md is not as Linnaeus writes"):
        render(card.parent)


def test_what_may_not_be_read_is_named(volume: Path):
    """A run of somebody else: a file of it, or the whole folder."""
    run = volume / "run"
    run.mkdir()
    (run / "log.csv").write_text(LOG)
    for name in ("curves.png", "log.csv"):
        (run / name).touch(0)
        (run / name).chmod(0)
        with powerless(), pytest.raises(DataError, match=f"cannot read {run / name}: "):
            render(run)

    for mode, error in ((0, BundleError), (0o444, DataError)):
        run.chmod(mode)
        with powerless(), pytest.raises(error, match=f"cannot read {run}: "):
            default_page(run)


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


def rows(page: str, title: str) -> list[list[str]]:
    """The table below a title, its head first."""
    table = page.partition(f"<h2>{title}</h2>")[2].partition("</table>")[0]
    found = [
        re.findall("<t[hd](?: [^>]*)?>(.*?)</t[hd]>", row)
        for row in table.split("</tr>")
    ]
    return [row for row in found if row]


def manifest(task: Task, **fields: object) -> Manifest:
    """Of three colors, of six shades, or of red and not red."""
    classes = 6 if task is Task.FINE_GRAINED else 3
    known = manifest_fields("colors", task, classes=classes)
    return Manifest.model_validate_json(json.dumps(known | fields))


def test_a_label_stands_beside_its_group_and_its_own_threshold():
    """A detector has one, which is that of its yes."""
    grained, detector = manifest(Task.FINE_GRAINED), manifest(Task.BINARY)

    assert labels_table(grained)["rows"] == [
        [label.name, label.group, ""] for label in grained.labels
    ]
    assert labels_table(detector)["rows"] == [["not red", "", ""], ["red", "", "0.900"]]
    several = labels_table(manifest(Task.MULTILABEL))
    assert [row[2] for row in several["rows"]] == 3 * ["0.900"]


def test_graphs_stand_side_by_side_for_each_data_that_they_were_measured_on():
    """With the gate of the one that had to pass; fp32 alone has none."""
    (fp32,) = manifest_fields("colors")["graphs"]
    test = {"dataset": "colors", "split": "test", "n": 18}
    test |= {"values": {"accuracy": 0.9, "risk": 0.1}}
    other = {"dataset": "art", "split": "all", "n": 5, "values": {"accuracy": 0.6}}
    gate = {"passed": True, "dataset": "colors", "n": 9, "accuracy_drop": 0.0}
    gate |= {"agreement": 1.0, "reason": "agrees in all"}
    small = test | {"values": {"accuracy": 0.8}}
    int8 = fp32 | {"precision": "int8", "file": "model.int8.onnx"}
    graphs = [fp32 | {"metrics": [test, other]}]

    alone = graph_tables(manifest(Task.MULTICLASS, graphs=graphs))
    both = graph_tables(
        manifest(
            Task.MULTICLASS, graphs=[*graphs, int8 | {"metrics": [small], "gate": gate}]
        )
    )

    titles = ["Measured on 5 images (art, all)", "Measured on 18 images (colors, test)"]
    assert [table["title"] for table in alone] == titles
    assert [table["title"] for table in both] == [*titles, "Gates of smaller graphs"]
    assert [[table["head"], *table["rows"]] for table in both] == [
        [["figure", "fp32"], ["accuracy", "0.6000"]],
        [
            ["figure", "fp32", "int8"],
            ["accuracy", "0.9000", "0.8000"],
            ["risk", "0.1000", ""],
        ],
        [["graph", "gate", "why"], ["int8", "passed", "agrees in all"]],
    ]


def test_a_page_on_a_bundle_says_what_it_is_for_and_shows_its_pictures(tmp_path: Path):
    """In the order of the card; one that is not there is not shown."""
    folder = make_bundle(tmp_path, "colors")
    for name in ("reliability.png", "mistakes.jpg"):
        (folder / name).write_bytes(name.encode())

    page = render(folder)

    lead = "Says which color an image has. Made for tests."
    assert f"<h1>colors, version 1</h1>\n<p>{lead}</p>" in page
    shown = re.findall('<img src="data:(.*?);base64,.*?" alt="(.*?)">', page)
    assert [(kind, html.unescape(caption)) for kind, caption in shown] == [
        ("image/jpeg", CAPTIONS["mistakes.jpg"]),
        ("image/png", CAPTIONS["reliability.png"]),
    ]


def test_a_page_on_an_evaluation_has_its_figures_and_circumstances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a run's folder, also its curves; the folder names the page from inside."""
    folder = tmp_path / "again"
    folder.mkdir()
    measured = {"metrics": {"nll": 0.5, "accuracy": 0.75}, "n": 8, "dataset": "colors"}
    measured |= {"split": "test", "intervals_95": {"accuracy": [0.25, 1]}}
    measured |= {"bundle": "colors/1", "precision": "int8"}
    row = {"label": "red", "n": 3, "predicted": 0, "precision": None, "recall": 0.0}
    measured |= {"per_class": [row | {"f1": 0.12345}]}
    measured |= {"confusable_pairs": [{"labels": ["red", "blue"], "counts": [2, 1]}]}
    (folder / "evaluation.json").write_text(json.dumps(measured))
    (folder / "curves.png").write_bytes(b"curves")
    monkeypatch.chdir(folder)

    page = render(Path())

    assert "<h1>again</h1>" in page
    assert rows(page, "Measured on 8 images (colors, test)") == [
        ["figure", "value", "95 % interval"],
        ["accuracy", "0.7500", "0.2500 to 1.0000"],
        ["nll", "0.5000", ""],
    ]
    assert rows(page, "By class")[1:] == [["red", "3", "0", "", "0.000", "0.123"]]
    assert '<th scope="col" class="number">F1</th>' in page
    assert '<td>red</td><td class="number">3</td>' in page  # long names have lines
    assert rows(page, "Most often mixed up")[1:] == [["red", "blue", "2", "1"]]
    assert (facts(page)["bundle"], facts(page)["precision"]) == ("colors/1", "int8")
    assert "Loss and validation score over the training." in page


def test_a_page_on_a_folder_whose_name_is_no_text_can_be_written(tmp_path: Path):
    """Python has such a byte as what no encoding takes."""
    folder = tmp_path / "run-\udce9"
    folder.mkdir()
    (folder / "log.csv").write_text(LOG)

    write_report(folder, tmp_path / "report.html")

    assert "<h1>run-?</h1>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("finetuned", "kept"), [(None, "probe"), ({"accuracy": 0.95}, "finetuned")]
)
def test_a_page_on_a_transfer_says_which_stage_was_kept(
    tmp_path: Path, finetuned: dict[str, float] | None, kept: str
):
    """Side by side, where there were two."""
    record = {"probe": {"accuracy": 0.9}, "finetuned": finetuned, "kept": kept}
    (tmp_path / "transfer.json").write_text(json.dumps(record))

    found = rows(render(tmp_path), f"Transfer, on validation (kept: {kept})")

    second = [["fine-tuned", "0.9500"]] if finetuned else []
    assert found == [["stage", "accuracy"], ["probe", "0.9000"], *second]


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("log.csv", "", "it is empty"),
        ("log.csv", "epoch,loss\n1,low\n", "'low'"),
        ("evaluation.json", '{"metrics": {}}', "'n'"),
        ("evaluation.json", '{"metrics": []}', "'items'"),
        ("transfer.json", '{"probe": {"accuracy": null}, "finetuned": {}}', "None"),
    ],
)
def test_a_file_that_only_has_the_name_of_ours_is_named(
    tmp_path: Path, name: str, content: str, wrong: str
):
    """Other programs leave such names, too."""
    (tmp_path / name).write_text(content)

    with pytest.raises(DataError, match=rf"{name} is not as Linnaeus .*{wrong}"):
        render(tmp_path)


@pytest.mark.parametrize("content", ["[]", '{"metrics": ', "\udce9"])
def test_what_is_no_record_of_an_evaluation_is_named(tmp_path: Path, content: str):
    """A list, half of a file, another encoding; nor is an empty folder anything."""
    with pytest.raises(DataError, match="is neither a run"):
        render(tmp_path)
    path = tmp_path / "evaluation.json"
    path.write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(DataError, match=re.escape(str(path))):
        render(tmp_path)


def test_what_is_set_to_nothing_is_set():
    """0 and false are values; what has none is not said."""
    config = {"crop": 0, "compile": False, "until": None, "sizes": [], "series": ""}

    assert written(config) == "crop = 0, compile = false"
    assert written({"positive": ["kätzchen"]}) == 'positive = ["kätzchen"]'
    assert written([{"kind": "sgd"}, config]) == (
        "kind = sgd; crop = 0, compile = false"
    )


def test_a_label_is_no_part_of_the_page(tmp_path: Path):
    """It would run in the browser of whoever reads the figures."""
    label = "<script>alert(1)</script>"
    row = {"label": label, "n": 1, "predicted": 1, "precision": 1.0}
    row |= {"recall": 1.0, "f1": 1.0}
    found = {"metrics": {"accuracy": 1.0}, "intervals_95": {}, "n": 1}
    found |= {"dataset": label, "split": "test", "per_class": [row]}
    (tmp_path / "evaluation.json").write_text(json.dumps(found))

    page = render(tmp_path)

    assert label not in page
    assert page.count("&lt;script&gt;") == 2
