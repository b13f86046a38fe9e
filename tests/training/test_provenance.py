"""A record names the commit of this code, and of no other."""

import subprocess
from pathlib import Path

from training.provenance import commit

AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@b")


def git(folder: Path, *arguments: str) -> None:
    """Run git there."""
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


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
