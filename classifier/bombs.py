"""bytes → **refusal**: small files that would cost hours or gigabytes to decode.

The pixels that a file declares are one way to ask for much (`decode` checks them);
here are those that need a look into one format. Each check reads the bytes only.
"""

import re
import struct
from collections.abc import Iterator, Mapping

from classifier.errors import ImageDecodeError, ImageTooLargeError

# libjpeg walks all pixels once a scan, and a scan can be a few bytes; encoders write
# about ten.
MAX_JPEG_SCANS = 100
# ITU-T T.81, B.1.1: markers but those without a length (TEM, RST0 to RST7). FF 00 is
# a byte of entropy-coded data and FF FF is fill.
JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN = 0xD8, 0xD9, 0xDA

# Pillow makes Python objects of each strip or tile: 5 microseconds and 250 bytes for
# two bytes of a file. One-row strips of the longest side that is accepted fit.
MAX_TIFF_CHUNKS = 65_536
# TIFF 6.0, sections 8 and 15
STRIP_OFFSETS, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS = 273, 322, 323, 324


def check_jpeg_scans(data: bytes) -> None:
    """Refuse a JPEG that walks its pixels too often. Raises ImageDecodeError."""
    # The marker cannot occur inside entropy-coded data, yet may in a profile, a
    # preview, or a video after the picture: only a high count is worth a closer look.
    if data.count(bytes((0xFF, START_OF_SCAN))) <= MAX_JPEG_SCANS:
        return
    scans = sum(marker == START_OF_SCAN for marker in _jpeg_markers(data))
    if scans > MAX_JPEG_SCANS:
        raise ImageDecodeError(
            f"the JPEG has {scans} scans; at most {MAX_JPEG_SCANS} are accepted"
        )


def _jpeg_markers(data: bytes) -> Iterator[int]:
    """Markers of the first picture, found as libjpeg finds them."""
    position = 0
    while found := JPEG_MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        yield marker
        if marker == END_OF_IMAGE:
            return
        if marker != START_OF_IMAGE:
            length = int.from_bytes(data[position : position + 2])
            position += max(2, length)


def check_tiff_chunks(data: bytes) -> None:
    """Refuse a TIFF of too many strips or tiles. Raises ImageDecodeError."""
    if data[:2] not in {b"II", b"MM"}:
        return
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:3] == b"+"  # 43, BigTIFF; where Pillow looks for it
    try:
        [start] = struct.unpack_from(
            f"{order}{'Q' if big else 'I'}", data, 8 * big or 4
        )
        [entries] = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
        entry = struct.Struct(f"{order}HH{'Q8x' if big else 'I4x'}")
        first = start + (8 if big else 2)
        for at in range(
            first, min(first + entries * entry.size, len(data)), entry.size
        ):
            tag, _, count = entry.unpack_from(data, at)
            if tag in (STRIP_OFFSETS, TILE_OFFSETS) and count > MAX_TIFF_CHUNKS:
                raise ImageDecodeError(
                    f"the TIFF has {count} strips or tiles; "
                    f"at most {MAX_TIFF_CHUNKS} are accepted"
                )
    except (struct.error, OverflowError):
        return  # no directory: Pillow refuses it


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
