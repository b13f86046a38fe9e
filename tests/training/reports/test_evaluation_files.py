"""What `linnaeus evaluate` leaves in its folder is of one evaluation."""

import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from classifier import Task
from classifier.bundle import load_bundle
from cli import app
from tests.synthetic import make_bundle
from tests.training.data.pictures import write_tree
from tests.training.reports.test_plots import evaluation
from training.data import load_dataset
from training.reports.evaluation_files import print_table

FOR_ALL = {"evaluation.json", "mistakes.csv", "reliability.png"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders of the three colors."""
    return write_tree(tmp_path / "photos", {"blue": 2, "green": 2, "red": 2})


def linnaeus(*arguments: object) -> str:
    """What the command says, in this process; it must succeed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_pictures_are_those_of_the_last_evaluation(tmp_path: Path, photos: Path):
    """A detector has a PR curve and here mistakes, which the next bundle has not."""
    out = tmp_path / "out"
    detector = make_bundle(tmp_path / "models", "red", Task.BINARY, thresholds=[0.0])
    colors = make_bundle(tmp_path / "models")

    linnaeus("evaluate", detector, photos, "--positive", "red", "--out", out)
    first = {file.name for file in out.iterdir()}
    linnaeus("evaluate", colors, photos, "--out", out)
    second = {file.name for file in out.iterdir()}

    both = FOR_ALL | {"confusion.png"}
    assert first == both | {"mistakes.jpg", "precision-recall.png"}
    assert second == both | {"risk-coverage.png"}


def listed(out: Path) -> list[dict[str, str]]:
    """The rows of `mistakes.csv`, with names as they are on the disk."""
    table = out / "mistakes.csv"
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def test_no_figure_is_cut_off_on_a_narrow_terminal(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    """They are what the command is for."""
    monkeypatch.setenv("COLUMNS", "30")
    arguments = ["evaluate", make_bundle(tmp_path / "models"), photos]
    arguments += ["--out", tmp_path / "out"]

    shown = CliRunner().invoke(app, [str(a) for a in arguments]).stdout

    assert "…" not in shown
    assert "1.0000" in shown


def test_a_mistake_is_found_again_by_its_file(tmp_path: Path, photos: Path):
    """A picture of the sheet tells nobody which file has the wrong label.

    A name that is not UTF-8 stands there byte for byte.
    """
    (photos / "red" / "0.png").rename(photos / "blue" / os.fsdecode(b"\xe9, 7.png"))
    bundle = make_bundle(tmp_path / "models")

    linnaeus("evaluate", bundle, photos, "--out", tmp_path)

    (row,) = listed(tmp_path)
    assert Path(row["file"]) == photos / "blue" / os.fsdecode(b"\xe9, 7.png")
    assert (row["truth"], row["answer"]) == ("blue", "red")
    assert 1 / 3 < float(row["score"]) <= 1


def test_figures_are_left_with_what_they_were_made_of(tmp_path: Path, photos: Path):
    """In both files alike, and on the terminal with their intervals."""
    (photos / "red" / "0.png").rename(photos / "blue" / "7.png")
    bundle, results = make_bundle(tmp_path / "models"), tmp_path / "results.json"

    said = linnaeus(
        "evaluate", bundle, photos, "--out", tmp_path / "out", "--results", results
    )

    found = json.loads(results.read_text())
    assert found == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    (graph,) = load_bundle(bundle).manifest.graphs
    assert (found["bundle"], found["precision"]) == ("colors/1", "fp32")
    assert found["graph_sha256"] == graph.sha256
    assert found["data_sha256"] == load_dataset(photos).parts["train"].sha256()
    assert found["confusable_pairs"] == [{"labels": ["red", "blue"], "counts": [0, 1]}]
    rows = {row["label"]: row for row in found["per_class"]}
    assert [rows["red"][key] for key in ("n", "predicted", "precision", "recall")] == [
        1, 2, 0.5, 1,
    ]  # fmt: skip
    low, high = found["intervals_95"]["accuracy"]
    line = rf"accuracy +│ +0\.8333 +│ +{low:.4f} to {high:.4f} "
    assert re.search(line, said)
    assert re.search(r"all: 6 images, +fp32", said)


def test_all_mistakes_are_listed_the_surest_first(tmp_path: Path):
    """The sheet has room for a few; of a detector, a false yes and a miss each."""
    photos = write_tree(tmp_path / "photos", {"green": 30, "red": 1})
    bundle = make_bundle(tmp_path / "models", "red", Task.BINARY, thresholds=[0.0])

    linnaeus("evaluate", bundle, photos, "--positive", "red", "--out", tmp_path)

    rows = listed(tmp_path)
    scores = [float(row["score"]) for row in rows]
    assert len({row["file"] for row in rows}) == 30
    assert {(row["truth"], row["answer"]) for row in rows} == {("not red", "red")}
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("name", ["price [red]", "a [/x] b", ":cat: [dog]"])
def test_the_table_names_the_data_as_it_is_called(
    name: str, capsys: pytest.CaptureFixture[str]
):
    """Brackets and colons are no colors and no emoji of the terminal."""
    found = evaluation(("a", "b", "c"), several=False)

    print_table(
        replace(found, dataset=name, metrics={"accuracy": 0.75}), precision="int8"
    )

    # the table is narrow, so that its title takes lines
    title = " ".join(capsys.readouterr().out.split()).partition(" ┏")[0]
    assert title == f"{name}, test: 4 images, int8"


def test_without_a_positive_there_is_no_curve_of_recall(tmp_path: Path):
    """A detector is measured on images of nothing that it looks for."""
    detector = make_bundle(tmp_path / "models", "red", Task.BINARY)
    photos = write_tree(tmp_path / "photos", {"green": 2})
    (photos / "green").rename(photos / "not red")

    linnaeus("evaluate", detector, photos, "--out", tmp_path / "out")

    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == FOR_ALL | {"confusion.png"}


def test_the_test_split_is_measured_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Into the folder that is said at the end."""
    bundle = make_bundle(tmp_path / "models")
    for split, images in (("train", 2), ("test", 1)):
        write_tree(
            tmp_path / "photos" / split, dict.fromkeys(("blue", "green", "red"), images)
        )
    monkeypatch.chdir(tmp_path)

    said = linnaeus("evaluate", bundle, "photos")
    train = linnaeus("evaluate", bundle, "photos", "--split", "train")

    assert "photos, test: 3 images" in said
    assert "photos, train: 6 images" in train
    assert said.endswith("figures, plots and mistakes in runs/evaluation\n")
    assert {file.name for file in Path("runs/evaluation").iterdir()} >= FOR_ALL


def test_other_files_of_the_folder_stay(tmp_path: Path, photos: Path):
    """It may be that of a run, whose curves are no picture of an evaluation."""
    (tmp_path / "curves.png").write_bytes(b"of the run")

    linnaeus("evaluate", make_bundle(tmp_path / "models"), photos, "--out", tmp_path)

    assert (tmp_path / "curves.png").read_bytes() == b"of the run"


@pytest.mark.parametrize("option", ["--out", "--results"])
def test_a_place_that_takes_no_figures_is_refused_before_they_are_measured(
    tmp_path: Path, photos: Path, option: str
):
    """Here a file is in the place of a folder, and a photo could not be read."""
    (photos / "red" / "0.png").write_bytes(b"damaged")
    (tmp_path / "file").write_text("")
    places = {"--out": tmp_path / "out", "--results": tmp_path / "results.json"}
    places[option] = tmp_path / "file" / "new"

    arguments = ["evaluate", make_bundle(tmp_path / "models"), photos]
    arguments += [word for pair in places.items() for word in pair]
    result = CliRunner().invoke(app, [str(a) for a in arguments])

    assert result.exit_code == 1
    assert f"cannot write {tmp_path / 'file'}" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_plots_do_not_become_images_of_the_data(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`evaluate BUNDLE .` would leave a class folder `runs` for the next training."""
    bundle = make_bundle(tmp_path / "models")
    monkeypatch.chdir(photos)

    result = CliRunner().invoke(app, ["evaluate", str(bundle), "."])

    assert result.exit_code == 1
    assert "lies inside the data; name another folder with --out" in str(
        result.exception
    )
    assert sorted(path.name for path in photos.iterdir()) == ["blue", "green", "red"]
