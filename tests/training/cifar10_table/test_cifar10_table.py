"""The CIFAR-10 table holds only what was measured, and goes on where it stopped."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.loop.runs import run
from training.cifar10_table.__main__ import main, parse_arguments
from training.cifar10_table.rows import ROWS, at_pace, config_of, share_out
from training.cifar10_table.sheet import (
    NOT_RUN,
    emptied,
    empty,
    load_sheet,
    looked,
    markdown,
    write_sheet,
)
from training.errors import TrainingError
from training.networks import card
from training.provenance import write_results


def test_each_row_is_a_network_with_the_published_goal():
    """Nine of them; a config for each is valid for any length."""
    assert len(ROWS) == 9
    for row in ROWS:
        assert card(row.network).dataset == "CIFAR-10"
        for epochs in (1, 80):
            config_of(row, epochs=epochs, batch_size=512, precision="bf16")


@given(
    seconds=st.floats(10, 10_000),
    costs=st.lists(st.floats(0.1, 50), min_size=len(ROWS), max_size=len(ROWS)),
)
def test_the_table_never_plans_more_than_its_minutes(seconds, costs):
    """Unless not even an epoch of each fits."""
    by_label = {row.label: cost for row, cost in zip(ROWS, costs, strict=True)}
    epochs = share_out(seconds, by_label)

    planned = sum(epochs[label] * cost for label, cost in by_label.items())
    assert planned <= max(seconds, sum(costs)) + max(costs) * len(ROWS)
    assert all(1 <= epochs[row.label] <= 2 * row.epochs for row in ROWS)


def test_what_a_network_took_corrects_what_the_others_will_take():
    """All were timed together, so a machine that was busy then was so for all."""
    costs = {"VGG16": 4.0, "ResNet18": 2.0, "ResNet50": 10.0}

    assert at_pace(costs, "VGG16", 2.0) == {"ResNet18": 1.0, "ResNet50": 5.0}
    assert at_pace({"VGG16": 4.0}, "VGG16", 2.0) == {}


def test_a_sheet_without_measurements_has_no_number_but_the_goals(tmp_path):
    """`not yet run` in every line."""
    sheet = load_sheet(tmp_path / "none.json")

    assert {cell["status"] for cell in sheet.values()} == {NOT_RUN}
    assert markdown(sheet).count(NOT_RUN) == len(ROWS)


def test_a_sheet_of_fewer_images_is_not_mixed_with_the_full_one(tmp_path):
    """A proof on 200 images must never pass for the table."""
    sheet = load_sheet(tmp_path / "a.json")
    sheet["VGG16"] |= {"status": "begun", "train_images": 200}
    write_sheet(tmp_path / "a.json", sheet)

    with pytest.raises(TrainingError, match="200 training images"):
        load_sheet(tmp_path / "a.json")


def measured_cell() -> dict[str, object]:
    """What a run leaves, with a figure."""
    figures = {
        "accuracy": 90.0,
        "accuracy_two_views": 91.0,
        "epochs": 3,
        "seconds": 4.0,
    }
    seen = {"circumstances": {"gpu": "G", "machine": "M"}}
    return {"status": "measured", "train_images": 50_000, **figures, **seen}


def test_what_is_measured_again_keeps_its_figures_of_before():
    """And tells how often the test split was looked at."""
    row = ROWS[0]
    cell = empty(row) | measured_cell() | {"looks": 1}

    again = emptied(row, cell)
    again |= measured_cell() | {"accuracy": 92.0, "looks": looked(again)}

    assert [seen["accuracy"] for seen in again["earlier"]] == [90.0]
    assert again["looks"] == 2
    assert "92.0 (look 2)" in markdown({row.label: again})


def test_looks_that_nobody_counted_are_not_made_up(tmp_path):
    """A cell of before has none in its record: their number stays unknown."""
    row = ROWS[0]
    write_results(tmp_path / "a.json", {"networks": {row.label: measured_cell()}})

    cell = load_sheet(tmp_path / "a.json")[row.label]

    assert cell["looks"] is None
    assert looked(emptied(row, cell)) is None
    assert "look" not in markdown({row.label: cell})


def test_the_data_lies_where_all_data_sets_do(monkeypatch, tmp_path):
    """One variable names their folder for every command."""
    monkeypatch.setenv("LINNAEUS_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["training.cifar10_table"])

    assert parse_arguments().data == tmp_path / "cifar-10"


def test_a_bare_gpu_machine_suffices(repository):
    """No command line, progress bar, exporter, plots or scikit-learn."""
    absent = ["onnx", "onnxscript", "typer", "rich", "sklearn", "matplotlib"]
    code = (
        f"import sys; sys.modules |= dict.fromkeys({absent}); "
        "import training.cifar10_table.__main__"
    )

    assert run([sys.executable, "-c", code], repository).returncode == 0


@pytest.mark.slow
def test_the_command_measures_and_does_not_measure_again(
    data_dir, repository, tmp_path, monkeypatch, capsys
):
    """On an image a class of the real data, one network of the nine."""
    results = tmp_path / "table.json"
    options = ["--epochs", "1", "--images", "10", "--only", "ResNet18"]
    options += ["--data", str(data_dir / "cifar-10"), "--out", str(tmp_path / "runs")]
    options += ["--device", "cpu", "--results", str(results)]

    program = "training.cifar10_table"
    first = run([sys.executable, "-m", program, *options], repository)
    assert first.returncode == 0, first.stderr
    cell = json.loads(results.read_text())["networks"]["ResNet18"]
    assert cell["status"] == "measured"
    assert cell["train_images"] == 10
    assert "(10 images only)" in results.with_suffix(".md").read_text()

    monkeypatch.setattr(sys, "argv", [program, *options])
    main()  # the same, in this process
    assert "ResNet18: all measured; --again repeats" in capsys.readouterr().err
    assert json.loads(results.read_text())["networks"]["ResNet18"] == cell
