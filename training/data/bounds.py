"""archive members → **admitted**: names that stay inside, sizes that fit in memory."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from zipfile import ZipInfo

from classifier.zips import unpacks_at_once
from training.errors import DataError

# Bounds against archive bombs. Photos hardly shrink in an archive, raw bitmaps shrink
# maybe twentyfold: more than 200-fold over a gigabyte is nobody's data set.
MAX_FILES = 5_000_000
MAX_FILE_BYTES = 256 << 20
MAX_UNPACKED_BYTES = 1 << 30
MAX_RATIO = 200
# Every folder of a name becomes a name of its own: 64 KB of "a/a/a/…" took 240 MB.
MAX_NAME, MAX_DEPTH = 4096, 64
# A compressed tar has no index: it is held in memory, so it must fit there.
MAX_HELD_BYTES = 4 << 30


def parents(names: Iterable[str]) -> frozenset[str]:
    """Every folder that one of the names lies in."""
    found: set[str] = set()
    for name in names:
        found.update(str(p) for p in PurePosixPath(name).parents)
    return frozenset(found - {"."})


def check_name(where: Path, name: str) -> None:
    """Refuse a member name that would lead out of the folder it is unpacked to, or that
    no file system holds.
    """
    check_depth(where, name)
    parts = PurePosixPath(name.replace("\\", "/")).parts
    drive = len(name) > 1 and name[1] == ":"
    if name.startswith(("/", "\\")) or ".." in parts or drive or "\0" in name:
        raise DataError(f"{where}: member {name!r} leads out of the archive")


def check_method(where: Path, member: ZipInfo) -> None:
    """Refuse bzip2 and LZMA, of which no bound on the bytes that are read holds."""
    if unpacks_at_once(member):
        raise DataError(
            f"{where}: {member.filename} is compressed by method "
            f"{member.compress_type}; only 0 (stored) and 8 (deflate) are accepted"
        )


def check_depth(where: Path, name: str) -> None:
    """Refuse the name of a file or folder that lies deeper than anybody's data."""
    if len(name) > MAX_NAME or name.count("/") > MAX_DEPTH:
        raise DataError(
            f"{where}: member {name[:40]!r}… has {len(name)} characters and lies "
            f"{name.count('/')} folders deep; at most {MAX_NAME} and {MAX_DEPTH} are "
            "accepted"
        )


def check_count(where: Path, files: int) -> None:
    """Refuse more files than anybody's data set has."""
    if files > MAX_FILES:
        raise DataError(f"{where} holds more than {MAX_FILES} files")


def check_unpacked(where: Path, unpacked: int) -> None:
    """Refuse an archive that claims to grow far beyond its own size."""
    packed = where.stat().st_size
    if unpacked > max(MAX_UNPACKED_BYTES, MAX_RATIO * packed):
        raise DataError(
            f"{where} ({packed} bytes) claims to unpack to {unpacked} bytes; "
            f"at most {MAX_RATIO}-fold is accepted"
        )


def bounded(data: bytes, name: str, where: Path) -> bytes:
    """The data, unless reading it had to stop at the bound."""
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{name} in {where} is larger than {MAX_FILE_BYTES >> 20} MiB")
    return data
