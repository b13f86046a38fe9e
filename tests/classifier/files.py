"""Image files of every accepted format, honest and hostile, made on the spot."""

import struct
import zlib
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# How each orientation of EXIF 2.32 is stored: the operation that makes `upright` lie.
LAY_DOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


def picture(width: int = 48, height: int = 32) -> npt.NDArray[np.uint8]:
    """Smooth, and different in each corner: uint8 [height, width, 3]."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = 255 * columns / max(1, width - 1)
    green = 255 * rows / max(1, height - 1)
    blue = 255 - (red + green) / 2
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def encode(
    image: Image.Image | npt.NDArray[np.uint8], fmt: str, **how: object
) -> bytes:
    """The bytes of an image file."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.ascontiguousarray(image))
    buffer = BytesIO()
    image.save(buffer, fmt, **how)
    return buffer.getvalue()


def oriented(fmt: str, orientation: int) -> bytes:
    """`picture()` lying as the EXIF orientation says, so that upright it is itself."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"quality": 95} if fmt in {"JPEG", "WEBP"} else {}
    return encode(LAY_DOWN[orientation](picture()), fmt, exif=exif, **how)


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png_that_declares(width: int, height: int) -> bytes:
    """A PNG of a few bytes, RGBA, whatever size its header says."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b"")


def jpeg_with_scans(scans: int, width: int = 64, height: int = 64) -> bytes:
    """A progressive JPEG whose last, tiny scan is repeated until there are `scans`."""
    data = encode(picture(width, height), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    head, scan = data[:last], data[last:-2]
    return head + scan * (scans - head.count(b"\xff\xda")) + b"\xff\xd9"


Entry = tuple[int, int, int, bytes | int]  # tag, type, count, values or one value


def tiff(*entries: Entry, side: int = 64, pixels: bytes | None = None) -> bytes:
    """A gray TIFF of one directory and one strip, with these entries besides."""
    rows: dict[int, Entry] = {
        256: (256, 4, 1, side),  # width
        257: (257, 4, 1, side),  # height
        258: (258, 3, 1, 8),  # bits per sample
        259: (259, 3, 1, 1),  # no compression
        262: (262, 3, 1, 1),  # black is zero
        273: (273, 4, 1, 0),  # where the strip is: filled in below
        278: (278, 4, 1, side),  # rows per strip
    }
    rows |= {entry[0]: entry for entry in entries}
    values_at = 8 + 2 + 12 * len(rows) + 4
    fields, values = b"", b""
    strip_at = values_at + sum(
        len(value) for *_, value in rows.values() if isinstance(value, bytes)
    )
    for tag, kind, count, value in sorted(rows.values(), key=lambda row: row[0]):
        fields += struct.pack("<HHI", tag, kind, count)
        if isinstance(value, bytes):
            fields += struct.pack("<I", values_at + len(values))
            values += value
        else:
            fields += struct.pack("<I", strip_at if tag == 273 else value)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(rows))
    strip = bytes(side * side) if pixels is None else pixels
    return head + fields + struct.pack("<I", 0) + values + strip


def directory(at: int, *entries: Entry) -> bytes:
    """A directory of a TIFF, and the values behind it, to be put at `at`."""
    values_at = at + 2 + 12 * len(entries) + 4
    fields, values = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in entries:
        if isinstance(value, bytes):
            place, values = values_at + len(values), values + value
        else:
            place = value
        fields += struct.pack("<HHII", tag, kind, count, place)
    return fields + struct.pack("<I", 0) + values
