"""file names → **those of images**, by their suffix, without what nobody put there."""

import os
from pathlib import Path, PurePosixPath

from classifier.errors import ImageError

# In lower case, of the formats that can be decoded.
SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif"),
        *(".bmp", ".tif", ".tiff", ".avif"),
    )
)
JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini"}


def is_image_name(name: str) -> bool:
    """Whether the suffix is that of a format that can be decoded."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def is_junk(name: str) -> bool:
    """Whether a file manager or an archiver left this behind.

    macOS writes a `._cat.jpg` beside `cat.jpg`.
    """
    return any(p in JUNK or p.startswith(".") for p in PurePosixPath(name).parts)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and those below it, in the order of their names.

    Raises:
        ImageError: a folder cannot be listed, and its images would be left out.
    """

    def refuse(error: OSError) -> None:
        raise ImageError(f"cannot list {error.filename}: {error.strerror}") from error

    images = []
    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_junk(name)]
        named = (name for name in names if is_image_name(name) and not is_junk(name))
        images += [Path(where, name) for name in named]
    return sorted(images)
