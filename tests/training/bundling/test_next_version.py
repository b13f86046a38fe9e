"""A next version is the same model: smaller graphs, and nothing lost on the way."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from classifier import Classifier
from classifier.bundle import Bundle, load_bundle
from classifier.golden import write_golden
from classifier.manifest import Manifest, Precision, Task
from classifier.session import Session
from cli import app
from tests.synthetic import manifest_fields
from tests.training.bundling.pooled import pooled_bundle
from tests.training.data.pictures import write_tree
from training.bundling.next_version import (
    HELD_OUT,
    DataSource,
    smaller_graphs,
    splits_for,
    told_unseen,
    unseen,
)
from training.configs.task_sections import BundleConfig
from training.errors import DataError
from training.provenance import circumstances, command_line
from training.quantization import gate

WriteConfig = Callable[..., Path]


def linnaeus(*arguments: object, catch: bool = True) -> Result:
    """Run the command in this process; it must succeed."""
    typed = [str(a) for a in arguments]
    result = CliRunner().invoke(app, typed, catch_exceptions=catch)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def pooled(tmp_path: Path) -> Path:
    """`models/colors`, whose network pools globally, beside its `photos`."""
    config = BundleConfig(int8=False, description="Tells colors.")
    return pooled_bundle(tmp_path, config)


@pytest.mark.parametrize(
    ("recorded", "by_config", "line"),
    [
        (None, False, "it is not recorded .* all figures of validation flatter$"),
        (
            "0" * 64,
            False,
            "may have learned some of them; .* flatter then. `--config` with",
        ),
        ("0" * 64, True, "although its config cut them: the data has changed since"),
        ("", True, None),
    ],
)
def test_figures_of_images_that_may_have_been_learned_are_warned_of(
    pooled: Path, caplog: pytest.LogCaptureFixture, recorded, by_config, line
):
    """On the card and before: the next version is the one that is served."""
    manifest = load_bundle(pooled).manifest
    splits = splits_for(manifest, DataSource(pooled.parent.parent / "photos"))
    sums = {} if recorded is None else {"validation": recorded}
    if recorded == "":
        sums = {"validation": splits.validation.sha256()}
    changed = manifest.provenance.model_copy(update={"data_sha256": sums})
    manifest = manifest.model_copy(update={"provenance": changed})

    with caplog.at_level("WARNING", "training"):
        told = told_unseen(manifest, splits, by_config=by_config)

    if line is None:
        assert told == HELD_OUT
        assert caplog.messages == []
    else:
        assert re.search(line, told)
        assert caplog.messages == [told]


def test_a_bundle_with_class_maps_is_optimized_and_keeps_them(pooled: Path):
    """They come off before a graph is made smaller, and every graph gets them back."""
    linnaeus("optimize", pooled, pooled.parent.parent / "photos")

    old, new = (load_bundle(pooled, version=version) for version in (1, 2))
    fp32 = [bundle.read_graph(bundle.graph(Precision.FP32)) for bundle in (old, new)]
    assert fp32[0] == fp32[1]
    for variant in new.manifest.graphs:
        assert Session.load(new.read_graph(variant)).has_class_maps


def test_an_fp16_graph_explains_like_the_others(pooled: Path):
    """A GPU takes it, and `explain` may not depend on the device."""
    linnaeus("optimize", pooled, pooled.parent.parent / "photos", "--no-int8", "--fp16")

    bundle = load_bundle(pooled)
    pixels = bundle.read_golden().pixels
    maps = [
        Session.load(bundle.read_graph(bundle.graph(each))).run_with_class_maps(pixels)
        for each in (Precision.FP32, Precision.FP16)
    ]
    for fp32, fp16 in zip(*maps, strict=True):  # logits, class maps
        assert fp16.dtype == np.float32
        assert fp16 == pytest.approx(fp32, abs=0.05)


def optimized(pooled: Path, *options: str) -> Bundle:
    """The next version of the newest, which the command names."""
    done = linnaeus("optimize", pooled, pooled.parent.parent / "photos", *options)
    bundle = load_bundle(pooled)
    card = bundle.folder / "card.md"
    said = f"wrote {bundle.folder}; what each graph reached: {card}\n"
    assert done.stdout == said
    return bundle


def test_a_bundle_shows_no_test_image_where_its_config_says_so(tmp_path: Path):
    """Private photos stay private, in the versions after it too."""
    wanted = pooled_bundle(tmp_path / "shown", BundleConfig(int8=False))
    private = BundleConfig(int8=False, mistakes=False)
    unwanted = pooled_bundle(tmp_path / "private", private)
    optimized(unwanted, "--no-int8")

    assert (wanted / "1" / "mistakes.jpg").exists()
    for version in ("1", "2"):
        assert not (unwanted / version / "mistakes.jpg").exists()
        assert "mistakes.jpg" not in (unwanted / version / "card.md").read_text()


def test_a_graph_that_is_not_made_anew_stays_with_its_gate(pooled: Path):
    """Whoever adds an fp16 graph for GPUs does not want int8 to go."""
    before = optimized(pooled)
    added = optimized(pooled, "--no-int8", "--fp16")
    again = optimized(pooled, "--no-int8")

    (old, new, newest) = (b.graph(Precision.INT8) for b in (before, added, again))
    assert (new.sha256, new.gate) == (old.sha256, old.gate)
    assert newest == new
    assert again.graph(Precision.FP16) == added.graph(Precision.FP16)
    assert "Not made anew: the int8 graph" in (added.folder / "card.md").read_text()
    assert Classifier.load(again.folder, precision="int8")


def test_each_optimization_leaves_its_circumstances(pooled: Path):
    """How the network came about stays, and each version adds how its graphs did."""
    first = load_bundle(pooled).manifest.provenance
    optimized(pooled, "--no-int8")
    last = optimized(pooled, "--no-int8", "--fp16")
    splits = splits_for(last.manifest, DataSource(pooled.parent.parent / "photos"))
    now = circumstances(command_line())

    origin = last.manifest.provenance
    assert origin.model_copy(update={"optimizations": ()}) == first
    one, two = origin.optimizations
    assert (one.version, two.version) == (1, 2)
    assert two.command.split()[0] == "linnaeus"
    assert two.data_sha256 == {
        "calibration": splits.calibration.sha256(),
        "validation": splits.validation.sha256(),
    }
    assert (two.commit, two.hardware) == (now["commit"], now["machine"])
    assert {"onnx", "onnxruntime"} <= set(two.versions)
    assert two.created != first.created
    assert last.manifest.description == "Tells colors."
    assert f"version 2, by `{two.command}`" in (last.folder / "card.md").read_text()


def test_a_card_says_that_rules_were_fitted_only_where_they_were(pooled: Path):
    """An imported network's temperature is 1 because nobody has fitted it."""
    fitted = (load_bundle(pooled).folder / "card.md").read_text()
    kept = (optimized(pooled, "--no-int8").folder / "card.md").read_text()

    assert "Temperature and thresholds: fitted on validation" in fitted
    assert "fitted on validation" not in kept
    assert "Temperature and thresholds: as in version 1" in kept


def test_an_int8_graph_stays_where_a_new_one_does_not_pass(
    pooled: Path, monkeypatch: pytest.MonkeyPatch
):
    """It has passed its own gate; the card says both."""
    before = optimized(pooled)
    monkeypatch.setattr(gate, "MIN_AGREEMENT", 1.1)
    after = optimized(pooled)

    assert after.graph(Precision.INT8).sha256 == before.graph(Precision.INT8).sha256
    card = (after.folder / "card.md").read_text()
    assert "No new int8 graph: " in card
    assert "Not made anew: the int8 graph" in card


def test_a_graph_that_answers_differently_here_is_left_out_by_name(pooled: Path):
    """Its golden logits are taken anew, which would hide it from every load.

    Nor does one stay that this version of ONNX Runtime does not take.
    """
    before = optimized(pooled)
    golden = before.read_golden()
    golden.logits[Precision.INT8][:] += 100
    content = write_golden(golden, before.manifest)
    (before.folder / "golden.npz").write_bytes(content)

    photos = pooled.parent.parent / "photos"
    said = linnaeus("optimize", pooled, photos, "--no-int8", "--fp16").stderr

    after = load_bundle(pooled)
    assert [g.precision for g in after.manifest.graphs] == ["fp32", "fp16"]
    left_out = "eft out: the int8 graph of version 2: golden replay"
    assert left_out in (after.folder / "card.md").read_text()
    assert left_out in said

    fp16 = after.graph(Precision.FP16)
    (after.folder / fp16.file).write_bytes(b"?")
    manifest = after.folder / "manifest.json"
    changed = hashlib.sha256(b"?").hexdigest()
    manifest.write_text(manifest.read_text().replace(fp16.sha256, changed))

    staying, (line,) = smaller_graphs(load_bundle(pooled))

    assert staying == {}
    assert line.startswith("Left out: the fp16 graph of version 3: ")


def test_the_config_of_a_training_splits_the_data_as_it_was_split_then(
    tmp_path: Path, write_config: WriteConfig
):
    """Test is cut first, and by all labels also where the bundle knows two."""
    data, models = tmp_path / "data", tmp_path / "models"
    write_tree(data / "photos", {"blue": 24, "green": 24, "red": 24})
    config = write_config(
        "photos", "multiclass", "photos",
        data="test = 12", epochs="1", bundle="int8 = false",
    )  # fmt: skip
    run, red = tmp_path / "runs" / "photos", models / "red"
    linnaeus("train", config, "--data", data, "--out", run)
    linnaeus(
        "export", run, "--data", data, "--models", models,
        "--name", "red", "--positive", "red",
    )  # fmt: skip

    linnaeus("optimize", red / "1", data, "--config", config, "--no-int8")

    card = (red / "2" / "card.md").read_text()
    assert "Validation: the images that the training had held out" in card
    assert "Measured on 12 images (photos, test)" in card
    # by hand it is cut by the two labels, and from all that is there
    manifest = load_bundle(red, version=1).manifest
    by_hand = splits_for(manifest, DataSource(data / "photos", validation=18))
    assert "not the images that the training had held out" in unseen(manifest, by_hand)

    # a question that two labels answer has the name of neither
    both = ("--positive", "blue", "--positive", "red")
    linnaeus("export", run, "--data", data, "--models", models, "--name", "two", *both)
    linnaeus("optimize", models / "two", data, "--config", config, "--no-int8", *both)
    card = (models / "two" / "2" / "card.md").read_text()
    assert "Validation: the images that the training had held out" in card


def test_the_figures_of_each_graph_are_its_own(pooled: Path):
    """Not those of fp32 twice: what int8 changes is what a reader looks for."""
    fp32, int8 = (g.metrics[0].values for g in optimized(pooled).manifest.graphs)

    assert fp32.keys() == int8.keys()
    assert fp32 != int8


def test_no_label_means_yes_to_a_bundle_of_another_task(pooled: Path):
    """It would change nothing, and whoever wrote it expects something else."""
    photos = pooled.parent.parent / "photos"

    with pytest.raises(DataError, match=r"'red' cannot mean yes \(--positive\): "):
        linnaeus("optimize", pooled, photos, "--positive", "red", catch=False)


def test_several_labels_are_read_where_the_bundle_gives_several(tmp_path: Path):
    """Also of data in which each image happens to have one."""
    photos = write_tree(tmp_path / "photos", {"blue": 9, "green": 9, "red": 9})
    files = sorted(photos.glob("*/*.png"))
    rows = [f"{file.relative_to(photos)},{file.parent.name}" for file in files]
    (photos / "labels.csv").write_text("\n".join(["filename,labels", *rows]))
    fields = manifest_fields("colors", Task.MULTILABEL)
    manifest = Manifest.model_validate_json(json.dumps(fields))

    splits = splits_for(manifest, DataSource(photos, validation=6))

    assert splits.validation.labels.shape == (6, 3)


@pytest.mark.parametrize("option", ["--seed", "--validation"])
def test_a_cut_below_nothing_is_refused_by_its_option(tmp_path: Path, option: str):
    """As any mistyped option is: with the name of it, and before anything is read."""
    result = CliRunner().invoke(app, ["optimize", *2 * [str(tmp_path)], option, "-5"])

    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


@pytest.mark.parametrize("option", [("--seed", 0), ("--validation", 0)])
def test_a_config_says_alone_how_the_data_is_split(
    tmp_path: Path, option: tuple[str, object]
):
    """Two answers to one question would be one too many; 0 is one, too."""
    arguments = ["optimize", tmp_path, tmp_path, "--config", "a.toml", *option]

    result = CliRunner().invoke(app, [str(a) for a in arguments])

    assert result.exit_code == 1
    assert "give it without --validation and --seed" in str(result.exception)
