"""bytes of a small PNG → **image**, in a fourth of the time that Pillow's reader takes.

Of a picture of 28 x 28 or 32 x 32 pixels Pillow unpacks the pixels in 10 µs, and reads
what stands around them in 60, in Python. Most such files are plain: 8 bits of gray or
RGB a sample, and nothing but pixels between header and end (PNG, 3rd edition, W3C 2025,
sections 5 and 11.2). Those are read here; their pixels Pillow's decoder unpacks all the
same. Everything else, and whatever is damaged, is left to Pillow's reader, which knows
what to make of it.
"""

from struct import Struct
from zlib import crc32

from PIL import Image

# Signature; length and kind of the first chunk, which is the header.
BEGINNING = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
# Width, height, bits, color type, compression, filter, interlace; checksum.
HEADER = Struct(">IIBBBBBI")
HEADER_END = len(BEGINNING) + HEADER.size
ENCODINGS = {(8, 0, 0, 0, 0): "L", (8, 2, 0, 0, 0): "RGB"}  # not interlaced
CHUNK, CHECKSUM = Struct(">I4s"), Struct(">I")

# Above, what is saved is nothing beside the pixels.
MAX_PIXELS = 128 * 128
MAX_BYTES = 4 * MAX_PIXELS


def read_small_png(data: bytes) -> Image.Image | None:
    """Read a plain PNG to an image of mode L or RGB; None if this is another file."""
    if not (HEADER_END < len(data) <= MAX_BYTES and data.startswith(BEGINNING)):
        return None
    width, height, *encoding, checksum = HEADER.unpack_from(data, len(BEGINNING))
    mode = ENCODINGS.get(tuple(encoding))
    checked = data[len(BEGINNING) - 4 : HEADER_END - CHECKSUM.size]
    if (
        mode is None
        or not 1 <= width * height <= MAX_PIXELS
        or checksum != crc32(checked)
    ):
        return None
    packed = _packed_pixels(data)
    if packed is None:
        return None
    try:
        return Image.frombytes(mode, (width, height), packed, "zip", mode)
    except ValueError:  # too few, or not packed by zlib
        return None


def _packed_pixels(data: bytes) -> bytes | None:
    """What the IDAT chunks hold; None unless they are whole, and IEND follows them."""
    pieces: list[bytes] = []
    begin = HEADER_END
    while (content := begin + CHUNK.size) <= len(data):
        length, kind = CHUNK.unpack_from(data, begin)
        end = content + length
        if end + CHECKSUM.size > len(data):
            return None
        [checksum] = CHECKSUM.unpack_from(data, end)
        if checksum != crc32(data[begin + 4 : end]):
            return None
        if kind == b"IEND":
            return b"".join(pieces)
        if kind != b"IDAT":
            return None
        pieces.append(data[content:end])
        begin = end + CHECKSUM.size
    return None
