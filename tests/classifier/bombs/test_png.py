"""PNG files of many chunks, and of packed texts."""

import zlib

import pytest

from classifier.bombs.png import MAX_CHUNKS, MAX_PACKED
from classifier.errors import ImageDecodeError
from tests.classifier.files import chunk, encode, picture
from tests.classifier.test_decode import decoded, difference

PLAIN = encode(picture(), "PNG")
HEAD, TAIL = 33, -12  # where IHDR ends, where IEND begins
ZEROS = zlib.compress(bytes(2**20 - 1))  # a kilobyte


def with_chunks(chunks: bytes, at: int = HEAD) -> bytes:
    """The picture, with more chunks."""
    return PLAIN[:at] + chunks + PLAIN[at:]


@pytest.mark.parametrize("at", [HEAD, TAIL], ids=["before", "behind"])
@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"prVt"])
def test_chunks_are_counted(kind, at):
    """Wherever they stand: Pillow spends 3 µs on each, and a sender 12 bytes."""
    with pytest.raises(ImageDecodeError, match="more than 65536 chunks"):
        decoded(with_chunks(chunk(kind, b"") * MAX_CHUNKS, at))


def test_pixels_in_thousands_of_pieces_are_fine():
    """Encoders cut them into pieces of 8 KiB, or smaller ones."""
    start = PLAIN.index(b"IDAT") - 4
    length = int.from_bytes(PLAIN[start : start + 4])
    pixels = PLAIN[start + 8 : start + 8 + length]
    pieces = b"".join(chunk(b"IDAT", pixels[i : i + 1]) for i in range(length))

    result = decoded(PLAIN[:start] + pieces + PLAIN[TAIL:])

    assert difference(result.image, picture()) == 0


@pytest.mark.parametrize(
    "packed",
    [
        chunk(b"iCCP", b"name\0\0" + ZEROS),
        chunk(b"zTXt", b"\0\0" + ZEROS),
        chunk(b"iTXt", b"key\0\1\0\0\0" + ZEROS),
    ],
    ids=["profile", "text without a key", "text"],
)
def test_packed_texts_are_counted(packed):
    """Each unpacks to a megabyte, and Pillow's own bound sees only good ones."""
    assert len(packed) < 2_000
    assert difference(decoded(with_chunks(packed)).image, picture()) == 0
    with pytest.raises(ImageDecodeError, match="more than 64 packed texts"):
        decoded(with_chunks(packed * (MAX_PACKED + 1)))


def test_what_stands_behind_the_end_is_not_read():
    """Some tools append their own data there."""
    result = decoded(PLAIN + chunk(b"teSt", b"") * (MAX_CHUNKS + 1))

    assert difference(result.image, picture()) == 0


def test_exif_of_megabytes_is_left_unread():
    """Parsing it costs 0.3 s a megabyte; the picture is good without."""
    tiff = b"II*\0\x08\0\0\0" + (1).to_bytes(2, "little")
    turned = tiff + bytes.fromhex("1201 0300 01000000 03000000") + bytes(4)
    whole, huge = chunk(b"eXIf", turned), chunk(b"eXIf", turned + bytes(2**20))

    assert difference(decoded(with_chunks(huge)).image, picture()) == 0
    assert difference(decoded(with_chunks(whole)).image, picture()[::-1, ::-1]) == 0
