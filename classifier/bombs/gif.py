"""GIF: comments and extensions in crumbs, before there is any picture."""

from collections.abc import Iterator
from itertools import islice

from classifier.errors import ImageDecodeError

# Pillow makes a Python object of each piece of a comment: 3 bytes of a file become 43
# of memory. A comment of 16 MB in pieces of the usual 255 bytes fits.
MAX_PIECES = 65_536

FLAGS_AT, SCREEN_BYTES = 10, 13  # GIF89a, section 18
EXTENSION, COMMENT, IMAGE, TRAILER = 0x21, 0xFE, 0x2C, 0x3B


def check_gif_pieces(data: bytes) -> None:
    """Refuse a GIF of too many pieces before its first image.

    Raises:
        ImageDecodeError
    """
    try:
        count = sum(1 for _ in islice(_pieces(data), MAX_PIECES + 1))
    except IndexError:
        return  # it ends before there is an image: Pillow refuses it
    if count > MAX_PIECES:
        raise ImageDecodeError(
            f"the GIF has more than {MAX_PIECES} pieces before its first image"
        )


def _pieces(data: bytes) -> Iterator[None]:
    """Once for each step of Pillow's, up to the first image.

    Raises:
        IndexError: there is none.
    """
    flags = data[FLAGS_AT]
    palette_bytes = 3 << (flags & 7) + 1 if flags & 0x80 else 0
    position = SCREEN_BYTES + palette_bytes
    while (kind := data[position]) not in (IMAGE, TRAILER):
        yield
        position += 1
        if kind != EXTENSION:
            continue
        label, size = data[position], data[position + 1]
        position += 2 + size
        # of all others Pillow reads one piece, and then pieces up to an empty one
        while size or label != COMMENT:
            yield
            size = data[position]
            position += 1 + size
            if not size:
                break
