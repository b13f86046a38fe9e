"""The real command line, in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import cli
from classifier.manifest import Task
from tests.synthetic import make_bundle, png


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder: colors in two versions, and one bundle of each other task."""
    root = tmp_path_factory.mktemp("models")
    make_bundle(root, "colors")
    make_bundle(root, "colors", version=2, top_k=2)
    make_bundle(root, "is-red", Task.BINARY)
    make_bundle(root, "has", Task.MULTILABEL)
    make_bundle(root, "shades", Task.FINE_GRAINED)
    return root


@pytest.fixture
def linnaeus(models: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `linnaeus ARGUMENTS` on those models, on a wide terminal."""
    monkeypatch.setenv("LINNAEUS_MODELS", str(models))
    monkeypatch.setenv("COLUMNS", "240")
    return lambda *arguments: CliRunner().invoke(cli.app, list(map(str, arguments)))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three images in two folders, and one text file."""
    (tmp_path / "more").mkdir()
    (tmp_path / "b.png").write_bytes(png((10, 10, 240)))
    (tmp_path / "a.PNG").write_bytes(png((240, 10, 10)))
    (tmp_path / "more" / "c.png").write_bytes(png((10, 240, 10)))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path
