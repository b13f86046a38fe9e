"""JPEG: headers of a million pieces, and scans that walk all pixels again and again."""

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL.JpegImagePlugin import MARKER

from classifier.errors import ImageDecodeError

# ITU-T T.81, B.1.1: markers but those without a length (TEM, RST0 to RST7), and those
# that are reserved (RES), which libjpeg refuses or, when it looks for a restart, skips
# alone. FF 00 is a byte of entropy-coded data and FF FF is fill.
WITH_LENGTH = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
MARK = 0xFF  # begins each
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN = 0xD8, 0xD9, 0xDA

# Pillow's loop over the header takes 0.4 µs for a byte of fill and 1 µs for a segment.
# Panoramas and thermal cameras fill two hundred segments of 64 KiB.
MAX_FILL_BYTES = 65_536
MAX_SEGMENTS = 1_000
# Some segments it takes apart, and it joins the pieces of EXIF anew at each of them:
# two megabytes of ten-byte pieces took 12 s, twice as much takes four times that.
MAX_PARSED_BYTES = 2**20
ANY_MARKER = re.compile(rb"\xff([^\x00\xff])")
APP0, APP1, APP13 = 0xE0, 0xE1, 0xED
EXIF, PHOTOSHOP = b"Exif\0\0", b"Photoshop 3.0\0"

# libjpeg walks all pixels once a scan (0.6 ns a pixel), and a scan can be a few bytes;
# encoders write about ten.
MAX_SCANS = 100
MAX_WALKED_PIXELS = 1_250_000_000


def check_jpeg_header(data: bytes) -> None:
    """Refuse a header of too many pieces. Raises ImageDecodeError.

    It is read as Pillow reads it, not as the standard does: what Pillow passes over
    byte by byte must be counted so.
    """
    position, segments, fill, parsed = 2, 0, 0, 0
    # two bytes more than the bound, because a marker has two
    while found := ANY_MARKER.search(data, position, position + MAX_FILL_BYTES + 2):
        fill += found.start() - position
        marker, position = found[1][0], found.end()
        segments += 1
        length = _length(data, marker, position)
        if _is_taken_apart(data, marker, position + 2):
            parsed += length
        if segments > MAX_SEGMENTS:
            raise _too_many(MAX_SEGMENTS, "segments")
        if parsed > MAX_PARSED_BYTES:
            raise _too_many(MAX_PARSED_BYTES, "bytes of tables and EXIF")
        if fill > MAX_FILL_BYTES or marker == START_OF_SCAN:
            break
        position += length
    else:
        fill += len(data) - position
    if fill > MAX_FILL_BYTES:
        raise _too_many(MAX_FILL_BYTES, "bytes between segments")


def _length(data: bytes, marker: int, at: int) -> int:
    """Bytes that Pillow reads behind a marker."""
    _, _, reader = MARKER.get(0xFF00 | marker, (None, None, None))
    return max(2, int.from_bytes(data[at : at + 2])) if reader else 0


def _is_taken_apart(data: bytes, marker: int, at: int) -> bool:
    """Whether Pillow looks into a segment, or only keeps it."""
    if marker == APP1:
        return data.startswith(EXIF, at)
    if marker == APP13:
        return data.startswith(PHOTOSHOP, at)
    return marker < APP0


def _too_many(most: int, what: str) -> ImageDecodeError:
    return ImageDecodeError(f"the header of the JPEG has more than {most} {what}")


def check_jpeg_scans(data: bytes, *, pixels: int) -> None:
    """Refuse a JPEG that walks its pixels too often. Raises ImageDecodeError."""
    most = min(MAX_SCANS, MAX_WALKED_PIXELS // pixels)
    # The marker cannot occur inside entropy-coded data, yet may in a profile, a
    # preview, or a video after the picture: only a high count is worth a closer look.
    if scan_starts(data) <= most:
        return
    scans = sum(marker == START_OF_SCAN for marker in _markers(data))
    if scans > most:
        raise ImageDecodeError(
            f"the JPEG has {scans} scans; at most {most} are accepted at its size"
        )


def scan_starts(data: bytes) -> int:
    """How often FF DA occurs: at even places, and at odd ones.

    `bytes.count` takes three times as long, and holds the interpreter's lock.
    """
    if not data:
        return 0
    marker = START_OF_SCAN << 8 | 0xFF
    even = np.frombuffer(data, "<u2", len(data) // 2)
    odd = np.frombuffer(data, "<u2", (len(data) - 1) // 2, offset=1)
    return int(np.count_nonzero(even == marker) + np.count_nonzero(odd == marker))


def scan_places(data: bytes) -> npt.NDArray[np.int64]:
    """Where FF DA occurs, in order."""
    values = np.frombuffer(data, np.uint8)
    return np.flatnonzero((values[:-1] == MARK) & (values[1:] == START_OF_SCAN))


def _markers(data: bytes) -> Iterator[int]:
    """Markers of the first picture, found as libjpeg finds them."""
    position = 0
    while found := WITH_LENGTH.search(data, position):
        marker, position = found[1][0], found.end()
        yield marker
        if marker == END_OF_IMAGE:
            return
        if marker != START_OF_IMAGE:
            length = int.from_bytes(data[position : position + 2])
            position += max(2, length)
