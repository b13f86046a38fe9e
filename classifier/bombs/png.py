"""PNG: chunks by the million, and packed texts that nobody will read."""

from classifier.errors import ImageDecodeError

SIGNATURE_BYTES = 8
# Pillow spends 3 µs on a chunk. Encoders cut the pixels into pieces of 8 KiB and more:
# the largest image that is accepted has fewer.
MAX_CHUNKS = 65_536
# Pillow unpacks each to at most 1 MiB, and most of them count for its bound on text
# only once they are good text: a megabyte of bad ones took 4 s.
PACKED = frozenset((b"iCCP", b"iTXt", b"zTXt"))
MAX_PACKED = 64


def check_png_chunks(data: bytes) -> None:
    """Refuse a PNG of too many chunks. Raises ImageDecodeError."""
    position, chunks, packed = SIGNATURE_BYTES, 0, 0
    while position + 8 <= len(data):
        kind = data[position + 4 : position + 8]
        if kind == b"IEND":
            return
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise ImageDecodeError(f"the PNG has more than {MAX_CHUNKS} chunks")
        if kind in PACKED:
            packed += 1
            if packed > MAX_PACKED:
                raise ImageDecodeError(
                    f"the PNG has more than {MAX_PACKED} packed texts and profiles"
                )
        position += 12 + int.from_bytes(data[position : position + 4])
