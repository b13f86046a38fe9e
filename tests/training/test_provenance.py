"""A record names the commit of this code, and of no other."""

import subprocess
from pathlib import Path

from training.provenance import command_line, commit

AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@b")


def git(folder: Path, *arguments: str) -> None:
    """Run git there."""
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def test_a_command_is_recorded_as_a_file_can_hold_it(monkeypatch):
    """A name that is no UTF-8 would end an export when all its work was done."""
    monkeypatch.setattr("sys.argv", ["linnaeus", "export", "caf\udce9 1"])

    assert command_line() == "linnaeus export 'caf? 1'"


def test_an_installed_copy_does_not_name_the_commit_of_the_project_around_it(
    tmp_path: Path, monkeypatch
):
    """Most people have their environment in a folder of their own repository."""
    monkeypatch.delenv("GIT_COMMIT", raising=False)
    copy = tmp_path / ".venv" / "training"
    copy.mkdir(parents=True)
    (copy / "provenance.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, *AUTHOR, "commit", "--quiet", "--allow-empty", "-m", "theirs")

    assert commit(copy / "provenance.py") is None

    git(tmp_path, "add", ".venv")
    git(tmp_path, *AUTHOR, "commit", "--quiet", "-m", "ours")

    assert commit(copy / "provenance.py") is not None
