"""The checkout itself is what these tests look at."""

import ast
import subprocess
from functools import cached_property
from pathlib import Path

import pytest

# What the project's own code is; `shared` and environments are never listed by git.
PACKAGES = ("classifier", "service", "training")


class Source:
    """One Python file of the project."""

    def __init__(self, root: Path, path: Path) -> None:
        self.path = path  # relative to the root
        self.text = (root / path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, filename=str(self.path))

    @property
    def room(self) -> str:
        """The first part of its path: `classifier`, `tests`, `cli.py` …"""
        return self.path.parts[0]

    def imports(self) -> list[tuple[int, str]]:
        """(line, dotted name) of every import, wherever in the file it stands."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                names = [f"{module}.{alias.name}" for alias in node.names]
                found += [(node.lineno, name) for name in names]
        return found


@pytest.fixture(scope="session")
def tracked(repository: Path) -> tuple[Path, ...]:
    """Every file of the project, relative to its root; new ones too."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=repository,
        check=False,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout, so nobody can say which files are ours")
    paths = (Path(name) for name in listing.stdout.split("\0") if name)
    return tuple(path for path in paths if (repository / path).is_file())


@pytest.fixture(scope="session")
def sources(repository: Path, tracked: tuple[Path, ...]) -> tuple[Source, ...]:
    """Every Python file of the project."""
    return tuple(Source(repository, p) for p in tracked if p.suffix == ".py")
