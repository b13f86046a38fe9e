"""BMP files of run lengths."""

import struct

import pytest
from PIL import Image

from classifier.bombs.bmp import MAX_RUN_PIXELS
from classifier.errors import ImageTooLargeError
from tests.classifier.files import encode
from tests.classifier.test_decode import decoded


def bmp_of_runs(width: int, height: int) -> bytes:
    """A BMP of 8 bits whose every line is one run of 255 pixels and ends there."""
    runs = b"\xff\x07\0\0" * height
    head = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 0, 0
    )
    palette = bytes(range(256)) * 4
    start = 14 + len(head) + len(palette)
    return (
        struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start)
        + head
        + palette
        + runs
    )


def test_a_large_bmp_of_run_lengths_is_refused():
    """Pillow unpacks them in Python: 50 megapixels took 6 s, of ten kilobytes."""
    side = int(MAX_RUN_PIXELS**0.5)

    with pytest.raises(ImageTooLargeError, match="with run lengths at most 4000000"):
        decoded(bmp_of_runs(side, side + 1))


def test_a_large_bmp_of_plain_pixels_is_read():
    """Only run lengths take so long."""
    side = int(MAX_RUN_PIXELS**0.5)

    assert decoded(encode(Image.new("1", (side, side + 1)), "BMP")).info.width == side


def test_a_small_one_is_read():
    """Lines that end early are filled up."""
    result = decoded(bmp_of_runs(300, 4))

    assert (result.info.width, result.info.height) == (300, 4)
