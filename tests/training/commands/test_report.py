"""`linnaeus report`: each thing that is reported on has a page of its own."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app, main
from tests.synthetic import make_bundle


def written(path: Path) -> Path:
    """The page that the command says it wrote."""
    result = CliRunner().invoke(app, ["report", str(path)])
    assert result.exit_code == 0, result.output
    return Path(result.stdout.removeprefix("wrote ").replace("\n", ""))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run called as a bundle is; commands are typed beside `runs`."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/colors")
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text("epoch,loss\n1,0.5\n")
    return folder


def test_no_report_takes_the_place_of_another(run: Path):
    """A run and a bundle of one name, two bundles, two versions."""
    for name, version in (("colors", 1), ("colors", 2), ("shapes", 1)):
        make_bundle(Path("models"), name, version=version)

    pages = {
        path: written(Path(path))
        for path in ("runs/colors", "models/colors", "models/colors/1", "models/shapes")
    }

    assert pages == {
        "runs/colors": Path("runs/colors/report.html"),
        "models/colors": Path("runs/report-colors-2.html"),
        "models/colors/1": Path("runs/report-colors-1.html"),
        "models/shapes": Path("runs/report-shapes-1.html"),
    }
    assert "colors, version 1" in pages["models/colors/1"].read_text()


def test_a_bundle_by_its_folder_and_by_its_name_is_one_page(run: Path):
    """From inside of it, too."""
    folder = make_bundle(Path("models")).resolve()

    assert written(folder) == written(Path("models/colors"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "nowhere"],
        ["evaluate", "nowhere", "nowhere"],
        ["optimize", "nowhere", "nowhere"],
        ["export", "nowhere"],
        ["train", "nowhere.toml"],
        ["pretrained", "efficientnet-lite9"],
        ["import", "nowhere.onnx"],
        ["data", "check", "nowhere"],  # whose 1 says that something was found
    ],
    ids=lambda arguments: arguments[0],
)
def test_each_command_of_training_fails_in_one_line(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """As those that serve do: the same first word, and nothing of our code."""
    monkeypatch.setattr("sys.argv", ["linnaeus", *arguments])

    with pytest.raises(SystemExit) as end:
        main()

    said = capsys.readouterr().err
    assert end.value.code == (2 if arguments[0] == "data" else 1)
    assert said.startswith("linnaeus: ")
    assert said.count("\n") == 1
    assert arguments[-1].removeprefix("efficientnet-") in said
