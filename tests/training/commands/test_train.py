"""`linnaeus train --test` measures what the task is watched by, whatever the task."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app
from training.commands.train import describe
from training.configs.config import parse_config
from training.loop.budget import Plan
from training.loop.loop import Outcome

WriteConfig = Callable[..., Path]


def measured(config: Path, data: Path) -> dict[str, float]:
    """The figures that `--test --results` leaves, with six views besides one."""
    results = config.with_suffix(".json")
    arguments = ["train", config, "--data", data, "--out", config.with_suffix("")]
    arguments += ["--set", "evaluate.views=6", "--test", "--results", results]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(results.read_text())["test"]


def refusal(config: Path, data: Path, *options: str) -> str:
    """What `train` says; it must not have begun."""
    out = config.with_suffix("")
    arguments = ["train", config, "--data", data, "--out", out, *options]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code != 0
    assert not (out / "log.csv").exists()
    return " ".join(f"{result.output} {result.exception}".split())


def test_a_test_split_that_is_not_there_is_missed_before_the_training(
    write_config: WriteConfig, color_folder: Path
):
    """Not after hours of it."""
    config = write_config("colors", "multiclass", "colors/train")

    assert "no test split" in refusal(config, color_folder, "--test")


def test_results_are_those_of_a_test(write_config: WriteConfig, color_folder: Path):
    """A file that would never be written is refused."""
    config = write_config("colors", "multiclass", "colors")

    assert "--test" in refusal(config, color_folder, "--results", "r.json")


@pytest.mark.parametrize(
    ("results", "named"), [("colors.toml/r.json", "colors.toml"), (".", ".")]
)
def test_results_that_cannot_be_written_are_refused_before_the_training(
    write_config: WriteConfig, color_folder: Path, results: str, named: str
):
    """Not after hours of it: a file is in the place of their folder, or a folder in
    their own.
    """
    config = write_config("colors", "multiclass", "colors")
    file = config.parent / results

    said = refusal(config, color_folder, "--test", "--results", str(file))

    assert f"cannot write {config.parent / named}: " in said


def test_the_rates_of_a_transfer_are_not_searched(
    write_config: WriteConfig, color_folder: Path
):
    """They are not those of an [[optimizer]]."""
    config = write_config("colors", "multiclass", "colors")
    text = config.read_text()
    start, end = text.index("[[optimizer]]"), text.index("[train]")
    config.write_text(text[:start] + "[transfer]\n\n" + text[end:])

    assert "transfer.head_rate" in refusal(config, color_folder, "--find-rate")


def test_a_rate_is_searched_in_place_of_a_training(
    write_config: WriteConfig, color_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A factor and its curve, in the folder that a run of this config has."""
    config = write_config("colors", "multiclass", "colors")
    monkeypatch.chdir(config.parent)
    monkeypatch.setenv("LINNAEUS_DATA", str(color_folder))

    result = CliRunner().invoke(app, ["train", config.name, "--find-rate"])

    assert result.exit_code == 0, result.output
    found = re.search(
        r"rates by about ([\d.]+(e-\d+)?); the curve is in (.*)", result.output
    )
    assert found is not None
    assert float(found[1]) > 0
    assert found[3] == "runs/colors/rates.png"
    assert [file.name for file in Path("runs/colors").iterdir()] == ["rates.png"]


def test_a_search_of_a_rate_tries_its_place_and_measures_no_test(
    write_config: WriteConfig, color_folder: Path
):
    """Before it begins; the config is in the place of the folder."""
    config = write_config("colors", "multiclass", "colors")
    place = ("--out", str(config))

    said = refusal(config, color_folder / "nowhere", "--find-rate", *place)
    assert f"cannot write {config}" in said
    assert "--test" in refusal(config, color_folder, "--find-rate", "--test")


def test_a_head_alone_is_given_no_minutes(
    write_config: WriteConfig, color_folder: Path
):
    """It is fitted in one go, so a budget of an hour would end in a minute unsaid."""
    config = write_config("colors", "multiclass", "colors")
    text = config.read_text()
    start, end = text.index("[[optimizer]]"), text.index("[train]")
    transfer = "[transfer]\nfinetune = false\n\n"
    config.write_text(text[:start] + transfer + text[end:])

    said = refusal(config, color_folder, "--minutes", "60")

    assert "--minutes" in said
    assert "--set transfer.finetune=true" in said


def test_a_detector_is_measured_by_its_own_scores(
    write_config: WriteConfig, color_folder: Path
):
    """Blue is a third of the images: always no is right on two thirds of them."""
    config = write_config(
        "blue", "binary", "colors", data='positive = ["blue"]', epochs="12"
    )

    found = measured(config, color_folder)

    assert (config.with_suffix("") / "curves.png").is_file()
    assert found["images"] == 18
    assert found["average_precision"] > 0.9
    assert found["accuracy"] == found["accuracy_views"] == 1.0
    assert "average_precision_views" in found


def test_several_labels_an_image_are_measured(
    write_config: WriteConfig, halves_table: Path
):
    """A score a label, and their mean."""
    config = write_config("halves", "multilabel", "halves", epochs="12")

    found = measured(config, halves_table)

    assert found["mAP"] > 0.8
    assert found["mAP_views"] == pytest.approx(found["mAP"], abs=0.1)


def test_the_figures_of_a_test_are_those_of_the_test_split(
    write_config: WriteConfig, color_folder: Path, tmp_path: Path
):
    """Five images of it are left, and validation has eighteen."""
    shutil.copytree(color_folder / "colors", tmp_path / "data" / "colors")
    for image in (tmp_path / "data" / "colors" / "test").glob("*/[1-5].png"):
        if image.parent.name != "red" or image.stem in "123":
            image.unlink()

    config = write_config("colors", "multiclass", "colors", epochs="1")
    results = config.with_suffix(".json")
    found = measured(config, tmp_path / "data")
    record = json.loads(results.read_text())

    assert found["images"] == 5
    assert record["network"] == "lenet5"
    assert record["data"] == "colors"
    assert record["train_images"] == 54
    assert set(record["validation"]) == {"accuracy", "loss"}
    assert record["epochs"] == record["plan"]["epochs"] == 1.0
    assert record["training_seconds"] >= 0  # of a tenth, which is long here
    assert record["config"]["data"]["validation"] == 18
    assert {"commit", "machine", "command"} <= set(record)


def test_one_label_of_many_is_measured_by_accuracy(
    write_config: WriteConfig, color_folder: Path
):
    """As the records of docs/results have it."""
    found = measured(write_config("colors", "multiclass", "colors"), color_folder)

    assert set(found) == {
        "images", "accuracy", "seconds_single_view",
        "views", "accuracy_views", "seconds_views",
    }  # fmt: skip


def sentence(*, steps: int = 0, scores: dict[str, float], **table: object) -> str:
    """What is said at the end of a run of 43.2 s in which an epoch has 10 steps."""
    given = {
        "name": "pets",
        "task": "multiclass",
        "data": {"path": "pets", "height": 32, "width": 32},
        "network": {"name": "efficientnet_lite0"},
    }
    config = parse_config(given | table, "pets.toml")
    outcome = Outcome(Plan(steps, 10, "fp32", {}), steps, steps, 43.2, scores)
    return describe(outcome, config)


def test_a_probe_is_told_of_without_epochs():
    """It has none, and figures are read, not copied with all their digits."""
    said = sentence(
        transfer={"finetune": False},
        scores={"accuracy": 1.0, "loss": 0.0384431932},
    )

    assert said == "probe fitted in 43 s; on validation accuracy 1.0000, loss 0.0384"


def test_a_training_is_told_of_with_its_epochs_and_its_budget():
    """And without validation, with nothing of it."""
    steps = {"parameters": "all", "kind": "sgd", "learning_rate": 0.1}
    data = {"path": "pets", "height": 32, "width": 32, "mean": [0.5], "std": [0.5]}
    said = sentence(
        optimizer=[steps],
        data=data | {"color": "gray"},
        train={"minutes": 1},
        steps=25,
        scores={},
    )
    transferred = sentence(transfer={}, train={"minutes": 1}, steps=25, scores={})

    assert said == "2.50 epochs in 43 s of 60 asked for"
    # the minutes are for the steps alone
    assert transferred == "2.50 epochs in 43 s, the probe included"
