"""From a config to its data: what does not fit the task is said, with its place."""

from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from cli import app
from tests.training.data.pictures import write_tree

WriteConfig = Callable[..., Path]


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
