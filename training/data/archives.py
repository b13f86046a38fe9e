"""zip or tar → **tree**: members read in place, each within its bounds."""

import lzma
import os
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from classifier.names import is_junk
from training.data.bounds import (
    MAX_FILE_BYTES,
    MAX_HELD_BYTES,
    bounded,
    check_count,
    check_method,
    check_name,
    check_unpacked,
    parents,
)
from training.errors import DataError

# What the readers of archives raise where one is damaged, cut off or encrypted. Not all
# of it is an OSError, and tarfile lets pass what its decompressors raise.
DAMAGE = (
    *(OSError, EOFError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)

# Of a member of a zip: the flag that its name is so, and the system that made it.
IN_UTF8, ON_WINDOWS = 0x800, 0


class ZipTree:
    """A zip archive. Each process opens its own: a file position cannot be shared.

    Of members of one name the last counts, as it is the one that is read.
    """

    def __init__(self, where: Path) -> None:
        self.where = where
        self._process = os.getpid()
        self._archive = _open_zip(where)
        folders: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._written: dict[str, str] = {}  # where the archive has another name
        for member in self._archive.infolist():
            name = _name_in_zip(where, member)
            check_name(where, name)
            if name in {"", "."} or is_junk(name):
                continue
            check_method(where, member)
            if name.endswith("/"):
                folders.add(name.rstrip("/"))
            else:
                self._sizes[name] = member.file_size
                self._written.pop(name, None)
                if name != member.filename:
                    self._written[name] = member.filename
        check_count(where, len(self._sizes))
        check_unpacked(where, sum(self._sizes.values()))
        self.names = tuple(sorted(self._sizes))
        self.folders = frozenset(folders) | parents(self._sizes)

    def read(self, name: str) -> bytes:
        """The bytes of one member, read up to the bound whatever its header says."""
        if self._process != os.getpid():  # a worker process was forked or spawned
            self._archive, self._process = _open_zip(self.where), os.getpid()
        try:
            with self._archive.open(self._written.get(name, name)) as member:
                data = member.read(MAX_FILE_BYTES + 1)
        except DAMAGE as error:
            raise DataError(f"cannot read {name} in {self.where}: {error}") from error
        return bounded(data, name, self.where)

    def size(self, name: str) -> int:
        """What the archive says of the member."""
        return self._sizes[name]

    def __getstate__(self) -> dict[str, object]:
        """Travels to worker processes without the open file."""
        return self.__dict__ | {"_archive": None, "_process": -1}


def _name_in_zip(where: Path, member: zipfile.ZipInfo) -> str:
    """The relative POSIX name of a member, whatever program wrote it.

    Where a name is not marked as UTF-8, the specification has it in code page 437. But
    programs write the bytes of their file system, which is UTF-8 nearly everywhere. On
    Windows some write backslashes (.NET before 4.6.1).

    Raises:
        DataError: a folder, which may be a label, has a name in an unknown encoding.
    """
    name = member.filename
    # with a slash it is the second byte of a letter, as in Shift JIS
    if member.create_system == ON_WINDOWS and "/" not in name:
        name = name.replace("\\", "/")
    name = name.removeprefix("./")
    marked = member.flag_bits & IN_UTF8 or member.filename != member.orig_filename
    if name.isascii() or marked:
        return name
    try:
        return name.encode("cp437").decode()
    except UnicodeError as error:
        folder = name.rpartition("/")[0]
        if folder.isascii():
            return name
        raise DataError(
            f"{where}: the folder {folder!r} has a name in an encoding that the "
            "archive does not tell; pack it with names in UTF-8, or as a tar"
        ) from error


class _Unpacked:
    """What a compressed tar unpacks to, as far as that is accepted.

    tarfile reads names in one piece, of whatever length a header says, and goes through
    what is left out here, be it a terabyte of zeros.
    """

    def __init__(self, file: BinaryIO, where: Path) -> None:
        self._file, self._where = file, where
        self.tell, self.close = file.tell, file.close

    def read(self, size: int) -> bytes:
        """Bytes. Raises DataError where these would be too many."""
        check_unpacked(self._where, self._file.tell() + size)
        if size > MAX_FILE_BYTES:
            raise DataError(
                f"{self._where} has a header of {size} bytes, and is damaged"
            )
        return self._file.read(size)

    def seek(self, position: int) -> int:
        """Go on at a position. Raises DataError where it is too far."""
        check_unpacked(self._where, position)
        return self._file.seek(position)


class _Archive(tarfile.TarFile):
    """A tar that is bounded where it is compressed, by whatever."""

    @classmethod
    def taropen(
        cls, name: Any, mode: Any = "r", fileobj: Any = None, **given: Any
    ) -> Any:
        """Called with the unpacking file; with none for a plain tar."""
        file: Any = None if fileobj is None else _Unpacked(fileobj, Path(name))
        return super().taropen(name, mode, file, **given)

    def next(self) -> tarfile.TarInfo | None:
        """The member that follows; tarfile would keep it too, in half a KB each."""
        self.members: list[tarfile.TarInfo] = []
        return super().next()


class TarTree:
    """A tar archive: a plain one is read by offset, a compressed one held in memory.

    So are files with holes in a plain one.
    """

    def __init__(self, where: Path) -> None:
        self.where = where
        self._held: dict[str, bytes] = {}
        self._held_bytes = 0
        self._offsets: dict[str, tuple[int, int]] = {}
        folders: set[str] = set()
        try:
            with _Archive.open(where) as archive:
                plain = not _is_compressed(where)
                for member in archive:
                    name = member.name.removeprefix("./").rstrip("/")
                    self._admit(archive, member, name, folders, plain=plain)
                self._check_end(archive)
        except DAMAGE as error:
            raise DataError(f"cannot read {where}: {error}") from error
        self.names = tuple(sorted(self._offsets))
        self.folders = frozenset(folders) | parents(self._offsets)

    def _admit(
        self,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        name: str,
        folders: set[str],
        *,
        plain: bool,
    ) -> None:
        if name in {"", "."}:
            return
        check_name(self.where, name)
        if is_junk(name):
            return
        if member.isdir():
            folders.add(name)
            return
        if not member.isreg():
            raise DataError(f"{self.where}: {name} is a link or device, not a file")
        check_count(self.where, len(self._offsets) + 1)
        if member.size > MAX_FILE_BYTES:
            raise DataError(
                f"{self.where}: {name} is larger than {MAX_FILE_BYTES >> 20} MiB"
            )
        self._offsets[name] = member.offset_data, member.size
        if not plain or member.issparse():  # whose bytes are there without its zeros
            self._hold(archive, member, name)

    def _check_end(self, archive: tarfile.TarFile) -> None:
        """tarfile takes a header that it cannot read for the end, without a word."""
        if archive.fileobj is None:
            raise AssertionError("the archive is closed")
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise DataError(
                f"{self.where} is damaged at byte {archive.offset}, where the header "
                f"of file {len(self._offsets) + 1} should be"
            )

    def _hold(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str
    ) -> None:
        self._held_bytes += member.size
        if self._held_bytes > MAX_HELD_BYTES:
            raise DataError(
                f"{self.where} unpacks to more than {MAX_HELD_BYTES >> 30} GiB; "
                "use a plain .tar, a .zip or a folder"
            )
        content = archive.extractfile(member)
        self._held[name] = content.read() if content is not None else b""

    def read(self, name: str) -> bytes:
        """The bytes of one member."""
        if name in self._held:
            return self._held[name]
        if name not in self._offsets:
            raise DataError(f"{self.where} has no {name}")
        offset, size = self._offsets[name]
        with self.where.open("rb") as file:  # its own position: safe in any worker
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise DataError(f"{self.where} is cut off inside {name}")
        return data

    def size(self, name: str) -> int:
        """What the archive says of the member."""
        return self._offsets[name][1]


def is_tar(where: Path) -> bool:
    """Whether a file is a tar, compressed or not; a damaged one is a `DataError`."""
    try:
        with _Archive.open(where):
            return True
    except tarfile.TarError:
        return False
    except DAMAGE as error:
        raise DataError(f"cannot read {where}: {error}") from error


def _open_zip(where: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(where)
    except DAMAGE as error:
        raise DataError(f"cannot read {where}: {error}") from error


def _is_compressed(where: Path) -> bool:
    with where.open("rb") as file:
        start = file.read(6)
    return start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
