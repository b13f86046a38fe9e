"""folder, tar or zip → **tree**: named files, read as bytes, never unpacked to disk.

Readers of data sets see one thing, whatever the packaging: relative POSIX names and
`read(name)`. Nothing is written, so a member called `../../etc/passwd` can overwrite
nothing; it is refused all the same, because its name would mislead every message.
"""

import os
import re
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import NoReturn, Protocol

from classifier.names import is_image_name, is_junk
from classifier.texts import as_utf8
from training.data.archives import TarTree, ZipTree, is_tar
from training.data.bounds import MAX_FILE_BYTES, check_count, check_depth
from training.errors import DataError

# What people call the folders of a split, and the split.
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "calibration": "calibration",
    "test": "test",
    "testing": "test",
}

ARCHIVE_SUFFIX = re.compile(r"\.(zip|tgz|tar|tar\.\w+)$", re.IGNORECASE)


class Tree(Protocol):
    """Files by relative POSIX name, sorted; `folders` has the empty ones too."""

    where: Path
    names: tuple[str, ...]
    folders: frozenset[str]

    def read(self, name: str) -> bytes:
        """The bytes of one file."""

    def size(self, name: str) -> int:
        """How many bytes that are, without reading them."""


class FolderTree:
    """A folder on disk. Links to folders are not followed: they can form a circle."""

    def __init__(self, where: Path) -> None:
        self.where = where
        names: list[str] = []
        folders: set[str] = set()
        for parent, below, files in os.walk(where, onerror=_refuse):
            inside = PurePosixPath(Path(parent).relative_to(where).as_posix())
            below[:] = [name for name in below if not is_junk(name)]
            folders.update(str(inside / name) for name in below)
            for name in below:
                check_depth(where, str(inside / name))
            names += [str(inside / name) for name in files if not is_junk(name)]
            check_count(where, len(names))
        self.names = tuple(sorted(names))
        self.folders = frozenset(folders)

    def read(self, name: str) -> bytes:
        """The bytes of one file; a file that cannot be read is a `DataError`."""
        path = self.where / name
        if self.size(name) > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error

    def size(self, name: str) -> int:
        """How many bytes the file has now."""
        path = self.where / name
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):  # a pipe may never end
            raise DataError(f"{path} is a pipe, a device or a folder, not a file")
        return found.st_size


def name_of(where: Path) -> str:
    """The name of the data set there: of a folder all of it, of an archive its stem.

    `.` has none by itself; links are not resolved, for their names were chosen, too.
    """
    name = as_utf8(Path(os.path.abspath(where)).name)  # manifests and records have it
    return ARCHIVE_SUFFIX.sub("", name)


def exists(path: Path) -> bool:
    """Whether something is there. Raises DataError where that may not be looked at."""
    try:
        return path.exists()
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    """A folder that cannot be listed would be left out, with all its images."""
    raise DataError(f"cannot read {error.filename}: {error.strerror}") from error


class Branch:
    """A folder inside a tree, seen as a tree of its own."""

    def __init__(self, tree: Tree, folder: str) -> None:
        self._tree, self._prefix = tree, folder + "/"
        self.where = tree.where / folder
        self.names = self._below(tree.names)
        self.folders = frozenset(self._below(sorted(tree.folders)))

    def _below(self, names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
        cut = len(self._prefix)
        return tuple(n[cut:] for n in names if n.startswith(self._prefix))

    def read(self, name: str) -> bytes:
        """The bytes of one file below the folder."""
        return self._tree.read(self._prefix + name)

    def size(self, name: str) -> int:
        """How many bytes one file below the folder has."""
        return self._tree.size(self._prefix + name)


def open_tree(path: Path) -> Tree:
    """Open a folder, `.zip`, `.tar`, `.tar.gz`, `.tgz`, `.tar.xz` or `.tar.bz2`.

    A lone folder that holds everything is stepped into: archives often have one.
    """
    if not exists(path):
        raise DataError(
            f"{path} does not exist; docs/data.md says where the data sets of the "
            "shipped configs come from, docs/training.md what yours may look like"
        )
    if path.is_dir():
        tree: Tree = FolderTree(path)
    elif zipfile.is_zipfile(path):
        tree = ZipTree(path)
    elif is_tar(path):
        tree = TarTree(path)
    else:
        raise DataError(f"{path} is no folder, zip, tar or CSV file")
    if not tree.names:
        refuse_links(tree)
        raise DataError(f"{path} holds no files")
    return _step_in(tree)


def tables(tree: Tree) -> list[str]:
    """The CSV files at its top."""
    return [n for n in tree.names if "/" not in n and n.lower().endswith(".csv")]


def links(tree: Tree) -> list[str]:
    """Folders of the tree that are links: what lies behind them is not in it."""
    return sorted(name for name in tree.folders if (tree.where / name).is_symlink())


def refuse_links(tree: Tree) -> None:
    """Refuse a tree that holds less than it seems to.

    Raises:
        DataError: a folder is a link; the message names it.
    """
    found = links(tree)
    if found:
        raise DataError(
            f"{tree.where / found[0]} is a link to a folder, and links are not "
            "followed; put the folder itself in its place"
        )


def _step_in(tree: Tree) -> Tree:
    tops = {name.split("/", 1)[0] for name in (*tree.names, *tree.folders)}
    only = tops.pop() if len(tops) == 1 else None
    if only is None or only.lower() in SPLIT_FOLDERS:
        return tree
    inside = Branch(tree, only)
    # A class folder has images and nothing else that counts.
    holds_all = (
        inside.folders or tables(inside) or not any(map(is_image_name, inside.names))
    )
    return _step_in(inside) if holds_all and inside.names else tree
