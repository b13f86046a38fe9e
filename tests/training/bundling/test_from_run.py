"""A run is exported with the data that it was trained on, or not at all."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from classifier import Classifier
from classifier.bundle import load_bundle
from classifier.hardware import describe
from classifier.manifest import Task
from cli import app
from tests.powerless import powerless
from tests.training.conftest import config_in
from tests.training.data.pictures import picture, write_tree
from training.bundling.draft import next_version
from training.bundling.from_run import ask, config_of, load_run, remarks
from training.configs.config import Config, read_config
from training.configs.sections import NetworkConfig
from training.data import Splits, cut, load_dataset
from training.errors import CheckpointError, ConfigError, DataError
from training.graphs.detector import SomeAgainstRest
from training.loop.checkpoint import read_checkpoint, write_checkpoint
from training.loop.runs import open_splits
from training.networks import build
from training.provenance import circumstances, command_line

WriteConfig = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on `data/photos`, class folders whose test split is cut from train."""
    root = tmp_path_factory.mktemp("trained")
    write_tree(root / "data" / "photos", {"blue": 24, "green": 24, "red": 24})
    config = config_in(
        root, "photos", "multiclass", "photos",
        data="test = 12", epochs="1", bundle="int8 = false",
    )  # fmt: skip
    run = root / "runs" / "photos"
    arguments = ["train", config, "--data", root / "data", "--out", run]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return run


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run, beside one of its data, for a test to spoil."""
    for part in ("data", "runs"):
        shutil.copytree(trained.parent.parent / part, tmp_path / part)
    return tmp_path / "runs" / "photos"


def export(run: Path, *options: str) -> Result:
    """`linnaeus export` of the run, into `models` beside the runs."""
    root = run.parent.parent
    arguments = ["export", run, "--data", root / "data", "--models", root / "models"]
    return CliRunner().invoke(app, [str(a) for a in (*arguments, *options)])


def altered(run: Path, change: Callable[[dict[str, object]], object]) -> None:
    """The run's `final.pt` as it would be from another machine or of before."""
    saved = read_checkpoint(run / "final.pt")
    change(saved)
    write_checkpoint(run / "final.pt", saved)


def test_a_photo_less_is_other_data(finished: Path):
    """The cut deals all images out anew: the new test would hold learned ones."""
    root = finished.parent.parent
    (root / "data" / "photos" / "red" / "7.png").unlink()

    result = export(finished)

    assert result.exit_code == 1
    assert "photos/final.pt was trained on other images" in str(result.exception)
    assert "train and validation" in str(result.exception)
    assert "put the data back" in str(result.exception)
    assert not (root / "models").exists()


def test_a_run_that_is_not_finished_is_not_exported(finished: Path):
    """Whatever its checkpoint is called."""
    (finished / "last.pt").replace(finished / "final.pt")

    result = export(finished)

    assert result.exit_code == 1
    assert "final.pt is a checkpoint to go on from" in str(result.exception)
    assert not (finished.parent.parent / "models").exists()


def test_the_rules_of_another_config_are_those_of_the_bundle(
    finished: Path, tmp_path: Path
):
    """With two views an image and its mirror image have the same answer."""
    rules = 'int8 = false\nviews = 2\ntop_k = 1\nlicense = "CC0"\nsource = "photos"'
    config = config_in(tmp_path, "rules", "multiclass", "photos", bundle=rules)

    result = export(finished, "--config", str(config))

    assert result.exit_code == 0, result.output
    classifier = Classifier.load(tmp_path / "models" / "photos", device="cpu")
    assert classifier.manifest.postprocess.top_k == 1
    origin = classifier.manifest.provenance
    assert (origin.license, origin.source) == ("CC0", "photos")
    trained_with = config_of(read_checkpoint(finished / "final.pt"), finished)
    splits = open_splits(trained_with, tmp_path / "data", finished.parent)
    assert origin.data_sha256 == {
        "train": splits.train.sha256(),
        "validation": splits.validation.sha256(),
    }
    photo = picture("red", 1, side=32)
    both = [photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    logits, mirrored = classifier.session.run(np.stack(both))
    assert logits == pytest.approx(mirrored, abs=1e-5)


def test_a_label_that_sorts_elsewhere_is_other_data(finished: Path):
    """There are as many, so nothing but their names tells that they are permuted."""
    photos = finished.parent.parent / "data" / "photos"
    (photos / "blue").rename(photos / "ultramarine")

    result = export(finished)

    assert result.exit_code == 1
    assert "number 0 was 'blue' and is 'green' in the data" in str(result.exception)


def test_the_same_data_elsewhere_is_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run goes to another machine; a question to it changes no image's side.

    Each `--positive` counts, and not the last of them alone. Here the data is where it
    is looked for unless it is named, and the bundle goes where one is served from.
    """
    shutil.move(tmp_path / "data", tmp_path / "shared" / "data")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.chdir(checkout)
    for name in ("LINNAEUS_DATA", "LINNAEUS_MODELS"):
        monkeypatch.delenv(name, raising=False)

    both = ("--positive", "red", "--positive", "blue", "--name", "both")
    result = CliRunner().invoke(app, ["export", str(finished), *both])

    assert result.exit_code == 0, result.output
    assert result.stdout == "wrote models/both/1; its card: models/both/1/card.md\n"
    asked = load_bundle(checkout / "models" / "both").manifest
    assert asked.task == "binary"
    assert [label.id for label in asked.labels] == ["green", "red-or-blue"]


def test_a_label_that_means_yes_twice_is_refused(finished: Path):
    """As by `optimize` and by a config: one of the two was meant to be another."""
    result = export(finished, "--name", "is-red", *2 * ("--positive", "red"))

    assert result.exit_code == 1
    assert "'red' is named twice among the positive labels" in str(result.exception)


def test_a_question_to_a_run_needs_a_name_of_its_own(finished: Path):
    """As the next version of the run's bundle it would answer that one's clients."""
    result = export(finished, "--positive", "red")

    assert result.exit_code == 1
    assert "give it a name of its own with --name" in str(result.exception)
    assert not (finished.parent.parent / "models").exists()


def test_a_run_of_before_fingerprints_is_exported_with_a_word(finished: Path):
    """Its labels are still compared."""
    altered(finished, lambda saved: saved.pop("fingerprints"))

    result = export(finished)

    assert result.exit_code == 0, result.output
    assert "does not say which images it was trained on" in result.stderr


def test_the_configs_of_recorded_runs_are_still_read(repository: Path):
    """Older ones say `mirror` where `views` is now; their runs can be exported."""
    mirrored = {}
    for path in sorted((repository / "docs" / "results").glob("*.json")):
        record = json.loads(path.read_text())
        if "bundle" in record.get("config", {}):
            said = record["config"]["bundle"].get("mirror")
            mirrored[said] = config_of(record, path).bundle.views

    assert mirrored[False] == 1
    assert mirrored[True] == 2


def test_the_card_names_the_circumstances_of_the_training(finished: Path):
    """Trained on a GPU and exported here, later: the seconds are the GPU's."""
    there = {"machine": "16 x Xeon (avx2)", "gpu": "1 x NVIDIA H200"}
    there |= {"commit": "0123456789ab", "versions": {"torch": "2.0.0", "onnx": None}}
    there |= {"seconds": 12.345, "command": "linnaeus train a.toml"}
    altered(finished, lambda saved: saved.update(there))
    results = finished.parent / "record.json"

    assert export(finished, "--results", str(results)).exit_code == 0

    bundle = load_bundle(finished.parent.parent / "models" / "photos")
    hardware, now = "1 x NVIDIA H200, 16 x Xeon (avx2)", circumstances(command_line())
    assert bundle.manifest.provenance.hardware == hardware
    assert bundle.manifest.provenance.seconds == 12.345
    typed = bundle.manifest.provenance.command.split("; ")
    assert typed == ["linnaeus train a.toml", now["command"]]
    assert bundle.manifest.provenance.commit == "0123456789ab"
    assert bundle.manifest.provenance.versions == {"torch": "2.0.0"}
    card = (bundle.folder / "card.md").read_text()
    assert f"Hardware: {hardware}; " in card
    assert "Commit: 0123456789ab; " in card
    assert (
        f"Exported by commit {now['commit']} with torch {now['versions']['torch']}, "
        in card
    )
    record = json.loads(results.read_text())
    assert record["training_hardware"] == hardware
    assert record["training_commit"] == "0123456789ab"
    assert record["training_versions"] == there["versions"]
    assert record["training_seconds"] == 12.3
    assert record["command"] == now["command"]


def test_a_run_knows_its_machine_and_the_file_of_its_config(
    trained: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    """As the file was given: a run's folder may have any name.

    Where data and models are, the environment may say.
    """
    run = finished.rename(finished.with_name("try3"))
    root = run.parent.parent
    for name in ("data", "models"):
        monkeypatch.setenv(f"LINNAEUS_{name.upper()}", str(root / name))

    assert CliRunner().invoke(app, ["export", str(run)]).exit_code == 0

    origin = load_bundle(root / "models" / "photos").manifest.provenance
    assert origin.config == str(trained.parent.parent / "photos.toml")
    assert origin.hardware == describe()


def test_a_run_of_before_machines_were_kept_says_so(finished: Path):
    """The machine that exports is named as that, and no file of a config is made up."""
    kept_now = ("machine", "gpu", "config_file", "commit", "versions")
    altered(finished, lambda saved: [saved.pop(key) for key in kept_now])

    assert export(finished).exit_code == 0

    root = finished.parent.parent
    origin = load_bundle(root / "models" / "photos").manifest.provenance
    assert origin.config is None
    assert origin.hardware == f"not recorded (exported on {describe()})"
    assert (origin.commit, origin.versions) == (None, {})


@pytest.mark.parametrize("cached", [True, False, None])
def test_the_card_says_where_the_time_of_features_is_not_counted(tmp_path, cached):
    """They came from the cache; records of before do not say."""
    record = {"probe": {"accuracy": 0.9}, "finetuned": None, "kept": "probe"}
    known = {} if cached is None else {"features_cached": cached}
    (tmp_path / "transfer.json").write_text(json.dumps(record | known))
    photos = write_tree(tmp_path / "photos", {"blue": 9, "red": 9})

    lines = remarks(tmp_path, cut(load_dataset(photos)))

    said = [line for line in lines if "came from the cache" in line]
    assert len(said) == (1 if cached else 0)
    assert [line for line in lines if line not in said] == [
        "Linear probe on validation: accuracy 0.9000",
        "Kept: probe",
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"probe": {}}', '{"probe": 1}', "[" * 100_000]
)
def test_a_damaged_record_of_a_transfer_is_named(tmp_path: Path, content: str):
    """In one line, and not in a traceback."""
    (tmp_path / "transfer.json").write_text(content)
    photos = write_tree(tmp_path / "photos", {"blue": 9, "red": 9})

    with pytest.raises(CheckpointError, match=r"transfer\.json is not as Linnaeus"):
        remarks(tmp_path, cut(load_dataset(photos)))


def test_the_card_counts_the_scenes_of_validation_and_both_stages_of_a_transfer(
    tmp_path: Path,
):
    """Forty photos of one animal say as much as one or two."""
    stages = {"probe": {"accuracy": 0.9}, "finetuned": {"accuracy": 0.95}}
    (tmp_path / "transfer.json").write_text(json.dumps(stages | {"kept": "finetuned"}))
    dataset = load_dataset(write_tree(tmp_path / "photos", {"blue": 9, "red": 9}))
    train = replace(dataset.train, scenes=np.arange(18) // 3)
    splits = cut(replace(dataset, parts={"train": train}), validation=6)

    assert remarks(tmp_path, splits) == (
        "Validation: 6 images of 2 scenes, none of which is in train",
        "Linear probe on validation: accuracy 0.9000",
        "Fine-tuned on validation: accuracy 0.9500",
        "Kept: finetuned",
    )


def test_a_name_that_no_bundle_may_have_is_refused_before_anything_else(
    tmp_path: Path,
):
    """Not after minutes of rules and gates; here there is not even a run."""
    result = export(tmp_path / "runs" / "pets", "--name", "My Pets")

    assert result.exit_code == 1
    assert "cannot be called 'My Pets'" in str(result.exception)
    assert "at most 64" in str(result.exception)


def test_a_place_that_takes_no_bundle_is_refused_before_the_data_is_opened(
    finished: Path,
):
    """Here a file is in the place of the models, and there is no data."""
    root = finished.parent.parent
    (root / "models").write_text("")
    shutil.rmtree(root / "data")

    result = export(finished)

    assert result.exit_code == 1
    assert "cannot write" in str(result.exception)
    assert "models/photos" in str(result.exception)

    taken = root / "models"
    for results, named in ((taken / "record.json", taken), (root, root)):
        result = export(finished, "--results", str(results))

        assert result.exit_code == 1
        assert f"cannot write {named}: " in str(result.exception)


def test_a_version_without_a_manifest_is_not_written_over(tmp_path: Path):
    """A copy of it may be under way. Other names count for nothing."""
    for name in ("1", "2", "7.old", "08", ".writing-9"):
        (tmp_path / "photos" / name).mkdir(parents=True)

    assert next_version(tmp_path, "photos") == 3
    assert next_version(tmp_path, "new") == 1


def test_several_labels_mean_yes_together():
    """The softmax gives each of them a probability, and yes has their sum."""
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    probabilities = logits.softmax(dim=1)
    yes = probabilities[:, 3] + probabilities[:, 0]

    asked = SomeAgainstRest(nn.Identity(), [3, 0], 4)(logits)

    assert torch.allclose(asked.sigmoid()[:, 0], yes)


@pytest.fixture
def shop(tmp_path: Path, write_config: WriteConfig) -> tuple[Config, Splits]:
    """A run's config and splits; red has a single photo, which train keeps."""
    write_tree(tmp_path / "shop", {"red": 1, "green": 30, "blue": 30})
    config = read_config(write_config("shop", "multiclass", "shop"))
    return config, open_splits(config, tmp_path)


def test_a_folder_of_data_that_may_not_be_looked_at_is_named(
    shop: tuple[Config, Splits], volume: Path
):
    """As one that is not there."""
    (volume / "theirs").mkdir(mode=0)

    with powerless(), pytest.raises(DataError, match=str(volume / "theirs")):
        open_splits(shop[0], volume / "theirs")


def test_what_has_no_yes_or_no_is_not_asked(shop: tuple[Config, Splits]):
    """A label that the run does not know; or all labels, so that no would be none.

    And a run that says yes or no has no probabilities to add.
    """
    binary = shop[0].model_copy(update={"task": Task.BINARY})
    with pytest.raises(ConfigError, match="ask for 'red' of a binary run with the lab"):
        ask(nn.Identity(), binary, shop[1], ("red",))
    with pytest.raises(ConfigError, match="ask for 'pink' of a multiclass run"):
        ask(nn.Identity(), *shop, ("red", "pink"))
    with pytest.raises(DataError, match="cannot be the positive labels of shop"):
        ask(nn.Identity(), *shop, ("red", "green", "blue"))


@pytest.mark.parametrize(
    ("name", "options"), [("lenet5", {}), ("efficientnet-lite0", {"pooled_stages": 5})]
)
def test_the_network_of_a_run_is_built_as_its_config_says(
    shop: tuple[Config, Splits], name: str, options: dict[str, int]
):
    """Here for gray images that are no squares; its weights fit no other."""
    config, splits = shop
    data = config.data.model_copy(update={"color": "gray", "width": 48})
    network = NetworkConfig(name=name, options=options)
    config = config.model_copy(update={"data": data, "network": network})
    sizes = {"classes": 3, "in_channels": 1, "image_size": (32, 48)}
    weights = build(name, **sizes, **options).state_dict()

    loaded = load_run(config, {"network": weights}, splits)

    assert not loaded.training


def test_a_label_is_asked_for_however_its_accents_are_written(
    tmp_path: Path, write_config: WriteConfig
):
    """Folders of macOS have them in another form of Unicode than the keyboard.

    The network is asked for the same labels as the data, and for each of them.
    """
    photos = write_tree(tmp_path / "shop", {"blue": 30, "green": 30, "red": 30})
    (photos / "green").rename(photos / normalize("NFD", "grün"))
    config = read_config(write_config("shop", "multiclass", "shop"))
    splits = open_splits(config, tmp_path)

    network, asked, relabelled = ask(nn.Identity(), config, splits, ("red", "grün"))

    both = normalize("NFD", "red-or-grün")
    assert relabelled.dataset.label_names == ("blue", both)
    assert asked.task is Task.BINARY
    assert network(torch.log(torch.tensor([[0.4, 0.1, 0.5]]))).sigmoid() == (
        pytest.approx(0.6)
    )


def test_a_detector_of_what_validation_lacks_is_refused(shop: tuple[Config, Splits]):
    """Its threshold would be above every score, and it would say no to all."""
    with pytest.raises(DataError, match="validation has no image of red, so that"):
        ask(nn.Identity(), *shop, ("red",))
