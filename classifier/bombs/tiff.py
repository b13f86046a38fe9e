"""TIFF: a directory that becomes a million objects, and tiles beyond the image."""

import struct
from collections.abc import Iterator, Mapping

from classifier.errors import ImageDecodeError, ImageTooLargeError

# Pillow makes Python objects of each entry, strip, tile and number: 5 microseconds and
# 250 bytes for two bytes of a file. One-row strips of the longest side that is accepted
# fit, and so do 16-bit tables.
MAX_ENTRIES = MAX_VALUES = 65_536

# TIFF 6.0, sections 2, 8 and 15
BYTE, ASCII, UNDEFINED = 1, 2, 7  # kept as the bytes they are
STRIP_OFFSETS, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS = 273, 322, 323, 324


def check_tiff_directory(data: bytes) -> None:
    """Refuse a TIFF of too many entries, strips, tiles or values in one entry.

    Raises:
        ImageDecodeError
    """
    try:
        for number, (tag, kind, count) in enumerate(_entries(data), start=1):
            if number > MAX_ENTRIES:
                raise ImageDecodeError(f"the TIFF has more than {MAX_ENTRIES} entries")
            if count > MAX_VALUES and kind not in (BYTE, ASCII, UNDEFINED):
                what = (
                    "strips or tiles"
                    if tag in (STRIP_OFFSETS, TILE_OFFSETS)
                    else f"values in its entry {tag}"
                )
                raise ImageDecodeError(
                    f"the TIFF has {count} {what}; at most {MAX_VALUES} are accepted"
                )
    except (struct.error, OverflowError):
        return  # no directory, or cut off: Pillow refuses it


def _entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Tag, type and count of each entry of the first directory.

    Raises:
        struct.error, OverflowError: it ends beyond the data.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:3] == b"+"  # 43, BigTIFF; where Pillow looks for it
    [start] = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 * big or 4)
    [entries] = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    entry = struct.Struct(f"{order}HH{'Q8x' if big else 'I4x'}")
    at = start + (8 if big else 2)
    for _ in range(entries):
        yield entry.unpack_from(data, at)
        at += entry.size


def check_tiff_tile(tags: Mapping[int, object], max_pixels: int) -> None:
    """Refuse a huge tile: its buffer is allocated whole, however small the image.

    Raises:
        ImageDecodeError: the tile's sides are no numbers.
        ImageTooLargeError: it has more than `max_pixels`.
    """
    width, length = tags.get(TILE_WIDTH, 1), tags.get(TILE_LENGTH, 1)
    # a file may give any type; text times a number would be gigabytes of text
    if not (isinstance(width, int) and isinstance(length, int)):
        raise ImageDecodeError("the TIFF is damaged: its tiles have no size")
    if width * length > max_pixels:
        raise ImageTooLargeError(
            f"the image declares tiles of {width}x{length} pixels; "
            f"at most {max_pixels} pixels are accepted"
        )
