"""From images in folders to a bundle that answers, by the commands that users type."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from classifier import Classifier, Precision, Task
from classifier.bundle import load_bundle
from cli import app
from tests.training.conftest import config_in
from training.bundling.next_version import DataSource, splits_for, unseen
from training.configs.config import parse_config
from training.loop.checkpoint import read_checkpoint
from training.loop.runs import open_splits

WriteConfig = Callable[..., Path]


def linnaeus(*arguments: object) -> Result:
    """Run the command in this process; it must succeed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


def trained(config: Path, data: Path, folder: Path) -> Path:
    """The bundle of a config, by `train` and `export`, with a record beside it."""
    run = folder / "runs" / config.stem
    linnaeus("train", config, "--data", data, "--out", run)
    linnaeus(
        "export", run, "--data", data, "--models", folder / "models",
        "--results", folder / f"{config.stem}.json",
    )  # fmt: skip
    return folder / "models" / config.stem


@pytest.fixture(scope="module")
def colors_bundle(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-class bundle of three colors."""
    folder = tmp_path_factory.mktemp("colors")
    config = config_in(
        folder, "colors", "multiclass", "colors", bundle="risk = 0.3", epochs="8"
    )
    return trained(config, color_folder, folder)


@pytest.fixture(scope="module")
def detector(colors_bundle: Path, color_folder: Path) -> tuple[Path, str]:
    """A bundle that the same run gives, of red or not, and what its export said."""
    root = colors_bundle.parent.parent
    said = linnaeus(
        "export", root / "runs" / "colors", "--data", color_folder,
        "--models", root / "detectors", "--name", "red", "--positive", "red",
    ).stderr  # fmt: skip
    return root / "detectors" / "red", said


def test_a_folder_of_images_becomes_a_bundle_that_answers(
    colors_bundle: Path, color_folder: Path
):
    """Six steps: data, network, training, evaluation, optimization, bundle."""
    classifier = Classifier.load(colors_bundle)

    photo = color_folder / "colors" / "test" / "blue" / "0.png"
    assert classifier.classify(photo).predictions[0].label == "blue"
    assert classifier.manifest.task is Task.MULTICLASS


def test_the_manifest_holds_what_was_measured_on_test(colors_bundle: Path):
    """Every graph has its own figures, and the smaller one the gate that it passed."""
    manifest = load_bundle(colors_bundle).manifest

    assert {g.precision for g in manifest.graphs} == {Precision.FP32, Precision.INT8}
    for graph in manifest.graphs:
        (measured,) = graph.metrics
        assert (measured.split, measured.n) == ("test", 18)
        assert measured.values["accuracy"] == 1.0
    int8 = manifest.graph(Precision.INT8)
    assert int8 is not None
    assert int8.gate is not None
    assert int8.gate.passed
    # not over images that it was trained on, which it is too sure of
    assert f"agreement over {int8.gate.n} images" in int8.gate.reason


def test_the_card_names_every_class_and_shows_every_picture(colors_bundle: Path):
    """A reader finds each label's figures, and no link to a missing file."""
    folder = load_bundle(colors_bundle).folder
    card = (folder / "card.md").read_text()

    for label in ("red", "green", "blue"):
        assert f"| {label} | 6 |" in card
    for line in card.splitlines():
        if line.startswith("!["):
            assert (folder / line.split("](")[1].rstrip(")")).is_file()


def test_evaluation_of_the_bundle_repeats_the_manifest(
    colors_bundle: Path, color_folder: Path, tmp_path: Path
):
    """The command and the export measure the same thing in the same way."""
    linnaeus(
        "evaluate", colors_bundle, color_folder / "colors", "--precision", "fp32",
        "--out", tmp_path,
    )  # fmt: skip

    found = json.loads((tmp_path / "evaluation.json").read_text())
    graph = load_bundle(colors_bundle).manifest.graph(Precision.FP32)
    assert graph is not None
    expected = graph.metrics[0].values
    assert found["metrics"] == pytest.approx(expected, abs=1e-5)
    assert found["n"] == 18
    assert {"commit", "machine", "versions", "command"} <= set(found)


def test_labels_of_other_data_are_refused_by_name(colors_bundle: Path, tmp_path: Path):
    """A data set with a label that the bundle does not know cannot be measured."""
    for label in ("red", "mauve"):
        (tmp_path / "other" / label).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "other" / label / "0.png")

    result = CliRunner().invoke(
        app, ["evaluate", str(colors_bundle), str(tmp_path / "other")]
    )

    assert result.exit_code == 1
    assert "mauve" in str(result.exception)


@pytest.fixture(scope="module")
def optimized(colors_bundle: Path, color_folder: Path) -> str:
    """The second version of the colors: what was said while it was made."""
    arguments = ("optimize", colors_bundle / "1", color_folder / "colors", "--fp16")
    return linnaeus(*arguments).stderr


@pytest.mark.usefixtures("optimized")
def test_optimize_writes_the_next_version_and_keeps_the_rules(colors_bundle: Path):
    """Labels, temperature and thresholds stay; an fp16 graph comes in."""
    old = load_bundle(colors_bundle, version=1).manifest
    new = load_bundle(colors_bundle, version=2).manifest
    assert new.postprocess == old.postprocess
    assert new.labels == old.labels
    assert new.graph(Precision.FP16) is not None
    assert Classifier.load(colors_bundle, version=2, precision="fp16")


def test_a_bundle_says_what_is_being_done(optimized: str):
    """Ranges, gate and figures take minutes for a large network."""
    assert "rules and gates from" in optimized
    assert "int8: measuring the ranges" in optimized
    assert "int8, all layers in int8; accuracy over" in optimized
    assert "measuring fp32" in optimized


def test_an_optimized_card_says_whether_its_images_were_held_out(
    colors_bundle: Path, color_folder: Path
):
    """Cut as the training did, they were; cut by another seed, perhaps not."""
    for seed, said in ((0, "the images that the training"), (1, "not the images that")):
        linnaeus(
            "optimize", colors_bundle / "1", color_folder / "colors", "--no-int8",
            "--validation", 18, "--seed", seed,
        )  # fmt: skip
        newest = max(int(folder.name) for folder in colors_bundle.iterdir())
        card = colors_bundle / str(newest) / "card.md"
        assert f"Validation: {said}" in card.read_text()


def test_an_optimized_card_of_an_unknown_training_does_not_judge_it(
    colors_bundle: Path, color_folder: Path
):
    """An imported model does not say what it has learned from."""
    manifest = load_bundle(colors_bundle).manifest
    source = DataSource(color_folder / "colors", validation=18)
    splits = splits_for(manifest, source)
    provenance = manifest.provenance.model_copy(update={"data_sha256": {}})
    imported = manifest.model_copy(update={"provenance": provenance})

    assert "the images that the training had held out" in unseen(manifest, splits)
    assert "not recorded" in unseen(imported, splits)


def test_optimizing_without_validation_images_is_an_error(
    colors_bundle: Path, color_folder: Path
):
    """Rules and gates come from them; nothing is written."""
    before = sorted(colors_bundle.iterdir())

    arguments = ["optimize", colors_bundle / "1", color_folder / "colors"]
    arguments += ["--validation", 0]
    result = CliRunner().invoke(app, [str(a) for a in arguments])

    assert result.exit_code == 1
    assert "no validation images" in str(result.exception)
    assert sorted(colors_bundle.iterdir()) == before


def test_the_report_is_one_page_without_links(colors_bundle: Path, tmp_path: Path):
    """It can be mailed: every picture is inside, and nothing is fetched."""
    page = tmp_path / "report.html"

    linnaeus("report", colors_bundle / "1", "--out", page)

    text = page.read_text()
    assert 'src="data:image/png;base64,' in text
    assert "http" not in text.replace("http-equiv", "")
    assert "accuracy" in text


def test_two_labels_become_a_detector_with_the_recall_asked_for(
    color_folder: Path, write_config: WriteConfig, tmp_path: Path
):
    """Blue against the rest: one logit, a threshold that finds all of validation."""
    config = write_config(
        "blue", "binary", "colors",
        data='positive = ["blue"]', bundle="recall = 1.0\nint8 = false",
    )  # fmt: skip

    bundle = trained(config, color_folder, tmp_path)

    classifier = Classifier.load(bundle)
    assert classifier.manifest.logits == 1
    answer = classifier.classify(color_folder / "colors/test/blue/1.png")
    assert answer.decision == "blue"
    assert classifier.classify(color_folder / "colors/test/red/1.png").decision == (
        "not blue"
    )


def test_a_multi_class_run_gives_a_detector_of_one_label(
    colors_bundle: Path, color_folder: Path, detector: tuple[Path, str]
):
    """Log-odds of one class under softmax: the same probability, as a yes or no."""
    asked = Classifier.load(detector[0], precision="fp32")
    whole = Classifier.load(colors_bundle, version=1, precision="fp32")
    pixels = whole.preprocess(color_folder / "colors/test/red/2.png").pixels[None]
    logits = whole.session.run(pixels)[0]
    index = [label.id for label in whole.manifest.labels].index("red")
    odds = asked.session.run(pixels)[0, 0]
    rest = [v for k, v in enumerate(logits.tolist()) if k != index]
    import math  # noqa: PLC0415

    expected = logits[index] - math.log(sum(math.exp(v) for v in rest))
    assert odds == pytest.approx(expected, rel=1e-3)
    smaller = Classifier.load(detector[0], precision="int8")
    assert smaller.classify(color_folder / "colors/test/red/2.png").decision == "red"
    assert smaller.classify(color_folder / "colors/test/blue/2.png").decision == (
        "not red"
    )


def test_the_card_and_the_log_say_what_was_asked_for(
    colors_bundle: Path, detector: tuple[Path, str]
):
    """A risk, granted of the colors; a yes or no about one of them has none."""
    red, said = detector

    asked = "- Asked for: at most 0.3 of the answers wrong. Granted from a score of"
    left_out = "Asked for: risk = 0.3. Left out: it is for multiclass and fine-grained"
    assert asked in (colors_bundle / "1" / "card.md").read_text()
    assert f"- {left_out}" in (red / "1" / "card.md").read_text()
    assert left_out in said


def test_a_detector_is_judged_by_images_that_the_run_has_not_learned(
    colors_bundle: Path, color_folder: Path
):
    """The question changes the labels, not the sides: validation stays validation."""
    run = colors_bundle.parent.parent / "runs" / "colors"
    config = parse_config(read_checkpoint(run / "final.pt")["config"], "final.pt")
    splits = open_splits(config, color_folder, run.parent)

    asked = splits.asked(("red",))

    names = splits.validation.samples.names
    red = [name.split("/")[1] == "red" for name in names]
    assert asked.validation.samples.names == names
    assert asked.train.samples.names == splits.train.samples.names
    assert asked.validation.labels.tolist() == [int(r) for r in red]
    assert len(asked.test) == 18


def test_an_export_leaves_a_record_of_every_graph(colors_bundle: Path):
    """Figures with intervals, rules, gate, config and circumstances, in one file."""
    record = json.loads((colors_bundle.parent.parent / "colors.json").read_text())
    manifest = load_bundle(colors_bundle, version=1).manifest
    run = colors_bundle.parent.parent / "runs" / "colors"
    saved = read_checkpoint(run / "final.pt")
    assert (record["bundle"], record["task"]) == ("colors/1", "multiclass")
    assert record["postprocess"] == manifest.postprocess.model_dump(mode="json")
    assert record["validation"] == saved["scores"]
    assert (record["epochs"], record["precision"]) == (8, "fp32")
    for graph in manifest.graphs:
        found = record[graph.precision]
        assert (found["split"], found["n"]) == ("test", 18)
        assert found["metrics"]["accuracy"] == 1.0
        assert found["intervals_95"]["accuracy"] == [pytest.approx(0.8147, abs=1e-4), 1]
        assert found["sha256"] == graph.sha256
        assert found["bytes"] == (colors_bundle / "1" / graph.file).stat().st_size
    assert record["int8"]["gate"]["passed"]
    assert record["config"]["name"] == "colors"
    assert record["transfer"] is None
    assert {"commit", "machine", "versions", "command"} <= set(record)


def test_several_labels_on_an_image_are_learned_and_thresholded(
    halves_table: Path, write_config: WriteConfig, tmp_path: Path
):
    """A CSV with `a|b` labels becomes a multi-label bundle with a threshold a label."""
    config = write_config(
        "halves", "multilabel", "halves", epochs="25", bundle="int8 = false"
    )

    bundle = trained(config, halves_table, tmp_path)

    manifest = load_bundle(bundle).manifest
    assert manifest.postprocess.thresholds is not None
    assert len(manifest.postprocess.thresholds) == 3
    graph = manifest.graph(Precision.FP32)
    assert graph is not None
    assert graph.metrics[0].values["map"] > 0.8
    card = load_bundle(bundle).folder / "card.md"
    assert "thresholds that have not seen it" in card.read_text()
