"""`linnaeus models`: every bundle and version, broken ones too."""

import json

import pytest

from classifier.errors import BundleError
from tests.synthetic import make_bundle


def test_each_version_is_listed_with_what_it_does(linnaeus):
    """Task, labels, input, graphs and what was measured."""
    result = linnaeus("models")

    assert result.exit_code == 0, result.output
    listed = [line.split() for line in result.stdout.splitlines() if "fp32" in line]
    for facts in (
        ["colors/1", "multiclass", "3", "8x8x3", "fp32:", "not", "measured"],
        ["colors/2", "multiclass", "3", "8x8x3", "fp32:", "not", "measured"],
        ["is-red/1", "binary", "2", "8x8x3", "fp32:", "not", "measured"],
    ):
        assert facts in listed


def test_each_graph_is_listed_with_the_first_figures_on_it(linnaeus, tmp_path):
    """Two of them, and on which images: a line a graph."""
    path = make_bundle(tmp_path) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["preprocess"]["height"] = 6
    values = {"accuracy": 0.95125, "f1": 0.9, "recall": 0.8}
    measured = [
        {"dataset": dataset, "split": "test", "n": 40, "values": values}
        for dataset in ("[b]pets", "others")
    ]
    [graph] = manifest["graphs"]
    small = {"file": "int8.onnx", "precision": "int8", "metrics": measured}
    manifest["graphs"].append(graph | small)
    path.write_text(json.dumps(manifest))

    result = linnaeus("models", "--models", tmp_path)

    row, graphs = [line.split() for line in result.stdout.splitlines() if ": " in line]
    assert row[3:] == ["8x6x3", "fp32:", "not", "measured"]
    said = "int8: accuracy 0.9513, f1 0.9 ([b]pets test, n=40)"
    assert " ".join(graphs) == said


@pytest.mark.parametrize("text", ["[/red]", "[bold]", "[link=x]", ":cat:"])
def test_a_broken_bundle_is_a_line_and_not_the_end(linnaeus, tmp_path, text):
    """Whatever its manifest holds, square brackets of the terminal's markup too."""
    folder = make_bundle(tmp_path / text.replace("/", "-"))
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {text: 1}))
    make_bundle(folder.parents[1], "whole")

    result = linnaeus("models", "--models", folder.parents[1])

    assert result.exit_code == 0, result.exception
    assert f"{text}: Extra inputs" in result.stdout
    assert "whole" in result.stdout


def test_a_folder_that_is_not_there_is_refused(linnaeus, tmp_path):
    """And the option that names another is told."""
    result = linnaeus("models", "--models", tmp_path / "none")

    assert isinstance(result.exception, BundleError)
    assert "is no folder; --models names" in str(result.exception)


def test_a_folder_without_bundles_is_said_to_be_empty(linnaeus, tmp_path):
    """Nothing at all would look like a fault."""
    folder = tmp_path / "[b]"
    folder.mkdir()

    assert (
        linnaeus("models", "--models", folder).stdout == f"{folder} holds no bundle\n"
    )


@pytest.mark.parametrize(("name", "target"), [("pets/1", "dogs/1"), ("pets", "dogs")])
def test_a_bundle_that_is_there_again_by_a_link_is_listed_once(
    linnaeus, tmp_path, name, target
):
    """`serve` would refuse the link, so it is told what to do about it."""
    make_bundle(tmp_path, "dogs")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / target)

    shown = linnaeus("models", "--models", tmp_path).stdout

    assert shown.count("dogs/1 ") == 1
    assert f"{tmp_path / 'pets' / '1'} is by a link" in shown


def test_nothing_but_the_broken_is_listed_without_a_table(
    linnaeus, tmp_path, monkeypatch
):
    """On a narrow terminal too a path is in one piece, to be copied."""
    path = make_bundle(tmp_path) / "manifest.json"
    path.write_text("{")
    monkeypatch.setenv("COLUMNS", "30")

    [line] = linnaeus("models", "--models", tmp_path).stdout.splitlines()

    assert line.startswith(f"{path}: ")


def test_a_name_is_folded_and_not_cut_off_on_a_narrow_terminal(
    linnaeus, tmp_path, monkeypatch
):
    """The rest of it may be what tells two models apart."""
    make_bundle(tmp_path, "the-dogs-of-the-neighbors")
    monkeypatch.setenv("COLUMNS", "50")

    assert "…" not in linnaeus("models", "--models", tmp_path).stdout
