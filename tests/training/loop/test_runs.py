"""From a config to its data: what does not fit the task is said, with its place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from classifier.hardware import describe
from cli import app
from tests.training.data.pictures import encoded, write_tree
from training.configs.config import read_config
from training.configs.task_sections import TransferConfig
from training.errors import CheckpointError, ConfigError, DataError
from training.loop import runs
from training.loop.checkpoint import read_checkpoint, write_checkpoint
from training.loop.distributed import Ranks
from training.loop.lock import LOCK, alone_in
from training.loop.runs import open_splits, prepare
from training.networks import NetworkError
from training.networks.fastcifar import FastCifar

WriteConfig = Callable[..., Path]
ALONE = Ranks(0, 1, torch.device("cpu"))


def test_negatives_do_not_hide_that_nothing_is_positive(
    color_folder: Path, write_config: WriteConfig
):
    """They leave two labels, whatever there were; three were learned as 0, 1 and 2."""
    negatives = '[[negatives]]\npath = "colors"'
    path = write_config("colors", "binary", "colors", bundle=negatives)

    with pytest.raises(ConfigError, match=r"which of the 3 labels .*data\.positive"):
        open_splits(read_config(path), color_folder)


def test_a_first_layer_is_whitened_by_images_of_all_labels(
    tmp_path: Path, write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
):
    """Class folders are read label by label, and the first images are all alike."""
    write_tree(tmp_path / "photos", {"blue": 24, "green": 24, "red": 24})
    path = write_config("photos", "multiclass", "photos")
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(runs, "WHITENING_IMAGES", 6)
    monkeypatch.setattr(FastCifar, "whiten", lambda _, images: seen.append(images))

    config = read_config(path, ("network.name='fastcifar_94'",))
    prepare(config, root=tmp_path, ranks=ALONE)

    [images] = seen
    assert len(images) == 6
    assert images.mean((2, 3)).argmax(1).unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "changes",
    [[], ["network.name='fastcifar_94'", "selection.proxy='lenet5'"]],
    ids=["network", "proxy"],
)
def test_images_cannot_grow_for_a_network_of_one_size(
    color_folder: Path, write_config: WriteConfig, changes: list[str]
):
    """Said before the training, which would end in a product of matrices."""
    path = write_config("colors", "multiclass", "colors")
    config = read_config(path, ("augment.sizes=[[0.5, 24], [1.0, 32]]", *changes))

    with pytest.raises(NetworkError, match=r"lenet5 is .*augment\.sizes has 24"):
        prepare(config, root=color_folder, ranks=ALONE)


def test_what_means_yes_is_not_left_to_the_alphabet(
    tmp_path: Path, write_config: WriteConfig
):
    """A recall of 98 % was promised of `healthy`, because it comes after `cancer`."""
    scans = write_tree(tmp_path / "scans", {"red": 30, "blue": 30})
    (scans / "red").rename(scans / "cancer")
    (scans / "blue").rename(scans / "healthy")
    silent = write_config("silent", "binary", "scans", bundle="recall = 0.98")
    clear = write_config("clear", "binary", "scans", data='positive = ["cancer"]')

    with pytest.raises(ConfigError, match=r'cancer, healthy; .* = \["cancer"\]'):
        open_splits(read_config(silent), tmp_path)
    splits = open_splits(read_config(clear), tmp_path)

    assert splits.dataset.label_names == ("healthy", "cancer")


@pytest.mark.parametrize("more", ["", '[[negatives]]\npath = "colours"'])
def test_data_that_is_not_there_is_told_with_the_option(
    color_folder: Path, write_config: WriteConfig, more: str
):
    """Whoever forgets `--data` is told of it, and not only which path is missing."""
    path = "colors" if more else "colours"
    positive = 'positive = ["red"]' if more else ""
    task = "binary" if more else "multiclass"
    config = write_config("pets", task, path, data=positive, bundle=more)

    with pytest.raises(DataError, match=r"no colours in .*; name .* --data or LINN"):
        open_splits(read_config(config), color_folder)


@pytest.mark.parametrize("task", ["multiclass", "binary", "fine-grained"])
def test_a_row_without_its_one_label_is_named_by_line(
    tmp_path: Path, write_config: WriteConfig, task: str
):
    """One empty cell does not make a data set of several labels."""
    (tmp_path / "shop").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "shop" / f"{name}.png").write_bytes(encoded("red", 1))
    table = tmp_path / "shop" / "labels.csv"
    table.write_text("file,label\na.png,x\nb.png,\nc.png,y\n")
    config = read_config(write_config("shop", task, "shop"))

    with pytest.raises(DataError, match=r"labels\.csv, line 3: 0 labels where exactly"):
        open_splits(config, tmp_path)


def test_files_that_are_ignored_are_told_of_before_the_training(
    tmp_path: Path, write_config: WriteConfig
):
    """Half of the photos of a phone can be in a format that is not read."""
    write_tree(tmp_path / "shop", {"red": 30, "blue": 30})
    for n in range(2):
        (tmp_path / "shop" / "red" / f"{n}.heic").write_bytes(b"x")
    config = write_config("shop", "multiclass", "shop", epochs="1")

    arguments = ["train", config, "--data", tmp_path, "--out", tmp_path / "run"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])

    assert result.exit_code == 0, result.output
    first = result.stderr.splitlines()[0]
    assert first == f"{tmp_path / 'shop'}: ignored 2 file(s), such as red/0.heic"


def test_a_validation_without_a_yes_is_refused(
    tmp_path: Path, write_config: WriteConfig
):
    """Its average precision is 0 for every network, and patience ends at once."""
    write_tree(tmp_path / "scans", {"red": 1, "blue": 59})
    config = read_config(
        write_config("scans", "binary", "scans", data='positive = ["red"]')
    )

    with pytest.raises(DataError, match="validation has no image of red, so that"):
        open_splits(config, tmp_path)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        (("train.patience=2",), "train.patience"),
        (("train.keep=best",), 'train.keep = "best"'),
        (("train.patience=2", "train.keep=best"), 'patience and train.keep = "best"'),
    ],
)
def test_a_choice_by_validation_needs_images(
    tmp_path: Path, write_config: WriteConfig, changes: tuple[str, ...], asked: str
):
    """Without one it would be no choice, and nobody would be told."""
    write_tree(tmp_path / "shop", {"red": 30, "blue": 30})
    path = write_config("shop", "multiclass", "shop")

    with pytest.raises(ConfigError, match=f"{asked}: there are no validation images"):
        open_splits(read_config(path, ("data.validation=0", *changes)), tmp_path)

    assert len(open_splits(read_config(path, changes), tmp_path).validation)
    assert open_splits(read_config(path, ("data.validation=0",)), tmp_path)


def test_a_transfer_chooses_by_validation(tmp_path: Path, write_config: WriteConfig):
    """Between its probes, and between probe and fine-tuning."""
    write_tree(tmp_path / "shop", {"red": 30, "blue": 30})
    path = write_config("shop", "multiclass", "shop")
    config = read_config(path, ("data.validation=0",)).model_copy(
        update={"transfer": TransferConfig()}
    )

    with pytest.raises(ConfigError, match=r"\[transfer\]: there are no validation"):
        open_splits(config, tmp_path)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        ({"red": 1, "green": 30}, "red: nothing watches it"),
        ({"red": 1, "green": 1}, "green, red: nothing watches them"),
    ],
)
def test_labels_that_nothing_watches_are_named(
    tmp_path: Path,
    write_config: WriteConfig,
    caplog: pytest.LogCaptureFixture,
    count: dict[str, int],
    said: str,
):
    """Train keeps the single image of a label."""
    write_tree(tmp_path / "shop", count | {"blue": 30})
    config = write_config("shop", "multiclass", "shop")

    with caplog.at_level("INFO", "training"):
        open_splits(read_config(config), tmp_path)

    assert f"validation has no image of {said}" in caplog.messages


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (b"x" * 201, "a bundle holds at most 200"),
        (b"caf\xe9", "which no bundle can hold: .* valid string"),
    ],
    ids=["long", "not UTF-8"],
)
def test_a_label_that_no_bundle_can_hold_is_refused_before_the_training(
    tmp_path: Path, write_config: WriteConfig, label: bytes, why: str
):
    """Not at the export, as a traceback."""
    shop = write_tree(tmp_path / "shop", {"red": 30, "blue": 30})
    try:
        (shop / "red").rename(shop / os.fsdecode(label))
    except OSError:
        pytest.skip("this file system has no such names")
    config = read_config(write_config("shop", "multiclass", "shop"))

    with pytest.raises(DataError, match=why):
        open_splits(config, tmp_path)


def test_a_question_may_not_be_called_like_the_other_label(
    tmp_path: Path, write_config: WriteConfig
):
    """No bundle has one label twice."""
    shop = write_tree(tmp_path / "shop", {"blue": 9, "green": 9, "red": 9})
    (shop / "green").rename(shop / "blue-or-red")
    asked = write_config("shop", "binary", "shop", data='positive = ["blue", "red"]')
    config = read_config(asked)

    with pytest.raises(DataError, match="the label 'blue-or-red' more than once"):
        open_splits(config, tmp_path)


def test_a_finished_run_keeps_the_machine_that_it_was_trained_on(
    tiny: Callable[..., Path],
):
    """The same command again, perhaps elsewhere and with --test, takes no step."""
    final = tiny() / "final.pt"
    there = {"machine": "16 x Xeon", "commit": "0123456789ab", "gpu": "1 x H200"}
    write_checkpoint(final, read_checkpoint(final) | there)

    tiny()
    kept = read_checkpoint(final)
    (final.parent / "last.pt").unlink()
    tiny()

    assert {key: kept[key] for key in there} == there
    assert read_checkpoint(final)["machine"] == describe()  # trained anew


def test_a_run_is_told_of_by_the_start_that_took_its_steps(tiny: Callable[..., Path]):
    """A training anew that was stopped goes on beside the `final.pt` before it."""
    folder = tiny("train.epochs=2", "train.checkpoint_minutes=1e-6")
    final, last = folder / "final.pt", folder / "last.pt"
    there = {"machine": "16 x Xeon", "commit": "0123456789ab"}
    write_checkpoint(final, read_checkpoint(final) | there)
    write_checkpoint(last, read_checkpoint(last) | {"step": 1})

    tiny("train.epochs=2", "train.checkpoint_minutes=1e-6")

    assert read_checkpoint(final)["machine"] == describe()


def test_a_run_goes_on_with_epochs_of_as_many_steps(tiny: Callable[..., Path]):
    """With `[selection]` another number of processes rounds them otherwise."""
    last = tiny() / "last.pt"
    saved = read_checkpoint(last)
    steps = saved["plan"]["steps_per_epoch"]
    other = saved["plan"] | {"steps_per_epoch": steps + 1}
    write_checkpoint(last, saved | {"plan": other})

    with pytest.raises(
        CheckpointError, match=f"with {steps + 1} steps an epoch; here .* {steps}:"
    ):
        tiny()


def test_a_training_says_how_many_images_each_split_has(
    tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    """Before the first step: a share may be of something else than was thought."""
    with caplog.at_level("INFO", "training"):
        tiny("data.validation=0.2")

    assert caplog.messages[0] == "images: train 48, validation 12, test 20"


def test_a_finished_run_is_not_written_over_by_another(tiny: Callable[..., Path]):
    """A probe alone leaves no `last.pt` that would tell them apart."""
    folder = tiny()
    (folder / "last.pt").unlink()
    before = (folder / "final.pt").read_bytes()

    with pytest.raises(CheckpointError, match=r"final\.pt was made with .*: seed"):
        tiny("seed=1")

    assert (folder / "final.pt").read_bytes() == before


def test_what_an_earlier_run_has_left_is_not_told_of_this_one(
    tiny: Callable[..., Path], tmp_path: Path
):
    """A transfer that was stopped: the card would say that its probe was kept."""
    (tmp_path / "run").mkdir()
    for name in ("transfer.json", "curves.png", "log.csv"):
        (tmp_path / "run" / name).write_text("step,epoch\n")

    folder = tiny()

    assert not (folder / "transfer.json").exists()
    assert not (folder / "curves.png").exists()
    assert "train_loss" in (folder / "log.csv").read_text()


def test_a_second_training_in_the_folder_is_refused_and_touches_nothing(
    tiny: Callable[..., Path], tmp_path: Path
):
    """They took turns at one checkpoint, and the second removed the first one's log."""
    log, partial = tmp_path / "run" / "log.csv", tmp_path / "run" / "last.pt.0a.partial"
    partial.parent.mkdir()
    log.write_text("step,epoch\n")
    partial.write_text("half of the w")
    refused = rf"another training \(process {os.getpid()}\) is writing to .*run; give"

    with alone_in(log.parent, ALONE), pytest.raises(CheckpointError, match=refused):
        tiny("seed=1")

    assert log.exists()
    assert partial.exists()
    assert (tiny("seed=1") / "final.pt").exists()


def test_what_killed_trainings_had_half_written_is_removed(
    tiny: Callable[..., Path], tmp_path: Path
):
    """A checkpoint may be large. Files that are not the training's own stay."""
    (tmp_path / "run").mkdir()
    for name in ("last.pt.0a", "final.pt.0b", "log.csv.0c", "holiday.mp4"):
        (tmp_path / "run" / f"{name}.partial").write_text("half of the w")

    left = tiny().glob("*.partial")

    assert [file.name for file in left] == ["holiday.mp4.partial"]


def test_without_a_lock_nothing_half_written_is_removed(
    tiny: Callable[..., Path], tmp_path: Path
):
    """It may be another training that writes it."""
    (tmp_path / "run" / LOCK).mkdir(parents=True)  # so that it cannot be had
    (tmp_path / "run" / "last.pt.0a.partial").write_text("half of the w")

    assert len(list(tiny().glob("*.partial"))) == 1
