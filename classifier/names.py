"""file names → **those of images**, by their suffix, without what nobody put there."""

from pathlib import Path, PurePosixPath

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
    """The images in a folder and those below it, in the order of their names."""
    images = (path for path in folder.rglob("*") if is_image_name(path.name))
    return sorted(
        path for path in images if not is_junk(path.relative_to(folder).as_posix())
    )
