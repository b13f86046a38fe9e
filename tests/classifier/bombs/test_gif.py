"""GIF files of many pieces before their picture."""

import pytest

from classifier.bombs.gif import MAX_PIECES
from classifier.errors import ImageDecodeError
from tests.classifier.files import encode, picture
from tests.classifier.test_decode import decoded, difference

PLAIN = encode(picture(), "GIF")
AT = 13 + 3 * 256  # behind the palette of 256 colors
MANY = MAX_PIECES + 1


def with_blocks(blocks: bytes) -> bytes:
    """The picture, with more blocks before it."""
    return PLAIN[:AT] + blocks + PLAIN[AT:]


@pytest.mark.parametrize(
    "blocks",
    [
        b"\x21\xfe" + b"\x01a" * MANY + b"\0",
        b"\x21\xff" + b"\x01a" * MANY + b"\0",
        b"\x21\xfe\x01a\0" * MANY,
        b"\x21\xfe\0" * MANY,
        b"\x21\xf9\x04\0\0\0\0\0" * MANY,
        b"a" * MANY,
    ],
    ids=["comment", "extension", "comments", "empty comments", "controls", "junk"],
)
def test_pieces_before_the_picture_are_counted(blocks):
    """Three bytes of a comment became 43 of memory: 860 MB of a file of 20 MB."""
    with pytest.raises(ImageDecodeError, match="more than 65536 pieces"):
        decoded(with_blocks(blocks))


def test_pieces_are_counted_where_there_is_no_palette_for_all_images():
    """They begin right behind the screen then; a comma in one begins no image."""
    screen = PLAIN[:10] + bytes([PLAIN[10] & 0x7F]) + PLAIN[11:13]

    with pytest.raises(ImageDecodeError, match="more than 65536 pieces"):
        decoded(screen + b"\x21\xfe" + b"\x01," * MANY + b"\0" + PLAIN[AT:])


def test_a_long_comment_is_fine():
    """In pieces of 255 bytes, as writers cut it."""
    comment = b"\x21\xfe" + (b"\xff" + b"a" * 255) * 5_000 + b"\0"

    assert difference(decoded(with_blocks(comment)).image, picture()) < 8


def test_an_extension_that_begins_with_nothing_is_read_as_pillow_reads_it():
    """It takes what follows for a piece, however the standard has it."""
    hidden = b"\x21\x01\0" + b"\x01a" * MANY + b"\0"

    with pytest.raises(ImageDecodeError, match="more than 65536 pieces"):
        decoded(with_blocks(hidden))


@pytest.mark.parametrize("end", [6, 10, 13, AT, AT + 1])
def test_a_gif_that_ends_before_its_picture_is_damaged(end):
    """Where no piece can be read there is none to count."""
    with pytest.raises(ImageDecodeError):
        decoded(PLAIN[:end])
