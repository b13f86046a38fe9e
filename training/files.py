"""content → **file**: whole or not at all, and a clear word where the disk refuses."""

import csv
import os
import secrets
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from training.errors import DataError, DiskError, TrainingError

ZIP_FOLDER = 0x10  # a bit of a member's attributes, outside of its checksum
# What reading a file raises whose content is other than its reader expects.
OTHERWISE = (
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    csv.Error,
)


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the name of `path` once its bytes are on the disk.

    Where that loses its power, a file that was only renamed may hold zeros.

    Raises:
        DiskError: as `whole`.
    """
    with whole(path) as partial, partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its name when the block is over.

    A kill or a full disk leaves what was at `path` before; after an error nothing of
    the temporary file stays. Its name is its own: two runs may write one file of
    features at the same time, and each leaves a whole one.

    A device or a pipe (`/dev/null`, `/dev/stdout`) is written to as it is: for root,
    a file would take its place.

    Raises:
        DiskError: the folder cannot be made, or the file not be written.
    """
    if is_stream(path):
        with writing(path):
            yield path
        return
    refuse_folder(path)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with writing(path):  # which counts the room before the file is removed
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.replace(path)
    except BaseException:
        discard(partial)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses inside is a DiskError that names `path`."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error}{room_left(path)}") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a text (UTF-8) or bytes. Raises DiskError."""
    with whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def is_stream(path: Path) -> bool:
    """Whether a device, a pipe or a socket is there, which keeps no content.

    Or a link of the system to one, which may lead to a file (`/dev/stdout > FILE`).
    """
    if path.absolute().parts[:2] in (("/", "dev"), ("/", "proc")):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # who writes there will say what is wrong
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def make_folder(path: Path) -> None:
    """With its parents, if it is not there. Raises DiskError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"cannot make the folder {path}: {error}") from error


def try_folder(folder: Path) -> None:
    """Refuse now a disk that would refuse the results after minutes of work.

    A folder is made inside, or in the first one that there is on the way there, and
    removed again.

    Raises:
        DiskError: it cannot be made.
    """
    with writing(folder):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        Path(tempfile.mkdtemp(prefix=".trial-", dir=there)).rmdir()


def try_file(path: Path) -> None:
    """As `try_folder`, of a file in it. Raises DiskError."""
    if not is_stream(path):
        refuse_folder(path)
        try_folder(path.parent)


def refuse_folder(path: Path) -> None:
    """A file cannot take a folder's place. Raises DiskError where one is there."""
    with writing(path):
        if path.is_dir():
            raise DiskError(f"cannot write {path}: it is a folder; name a file")


def discard(partial: Path) -> None:
    """Remove the file if it is there and the disk lets go of it."""
    try:
        partial.unlink(missing_ok=True)
    except OSError:  # a folder stands in its way, or there is none: nothing to remove
        return


def discard_partials(path: Path) -> None:
    """Remove what killed processes left of writing `path`; nobody may be at it now."""
    for partial in path.parent.glob(f"{path.name}.*.partial"):
        discard(partial)


def room_left(path: Path) -> str:
    """` (N bytes are free there)`, as far as the system says so."""
    try:
        there = next(parent for parent in path.absolute().parents if parent.is_dir())
        return f" ({shutil.disk_usage(there).free:,} bytes are free there)"
    except OSError:
        return ""


@contextmanager
def ours(path: Path, raises: type[TrainingError] = DataError) -> Iterator[None]:
    """What cannot be made inside of the file at `path` is an error that names it."""
    try:
        yield
    except OSError as error:
        raise raises(f"cannot read {path}: {error.strerror}") from error
    except OTHERWISE as error:
        raise raises(f"{path} is not as Linnaeus writes it: {error!r}") from error


def damaged_member(path: Path) -> str | None:
    """The first member of a zip file (checkpoints are some) that has been damaged.

    torch compares no checksums, and of a member that is marked as a folder it reads
    nothing, silently.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: it is no zip file. Damage can raise any other error, too.
    """
    from classifier.zips import unpacks_at_once  # noqa: PLC0415 - slow to load

    with zipfile.ZipFile(path) as members:
        found = members.infolist()
        odd = first_name(member for member in found if unpacks_at_once(member))
        if odd is not None:  # torch reads no such member
            return odd
        marked = first_name(m for m in found if m.external_attr & ZIP_FOLDER)
        return members.testzip() or marked


def first_name(members: Iterable[zipfile.ZipInfo]) -> str | None:
    """The name of the first member, if there is one."""
    return next((member.filename for member in members), None)
