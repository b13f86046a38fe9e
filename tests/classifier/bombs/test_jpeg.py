"""JPEG headers of many pieces, and pixels walked many times."""

import re
import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from classifier.bombs import check_opened
from classifier.bombs.jpeg import (
    MAX_FILL_BYTES,
    MAX_PARSED_BYTES,
    MAX_SEGMENTS,
    check_jpeg_scans,
    scan_starts,
)
from classifier.errors import ImageDecodeError
from tests.classifier.files import encode, jpeg_with_scans, oriented, picture
from tests.classifier.test_decode import decoded, difference

PLAIN = encode(picture(), "JPEG", quality=95)
COMMENT, APP1, APP13, TABLE = 0xFE, 0xE1, 0xED, 0xDB
FULL = 65_000  # bytes of a segment that is nearly as long as one can be


def segment(marker: int, content: bytes = b"") -> bytes:
    """A marker, its length and its content."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def with_header(*pieces: bytes) -> bytes:
    """The picture, with a comment and more in front of its own header."""
    return PLAIN[:2] + segment(COMMENT) + b"".join(pieces) + PLAIN[2:]


def is_the_picture(data: bytes) -> bool:
    """Whether a file gives `picture()`."""
    return difference(decoded(data).image, picture()) < 8


@pytest.mark.parametrize("filler", [b"\xff", b"a", b"\xff\x00", b"\xff\xff\x00"])
def test_bytes_between_segments_are_counted(filler):
    """Pillow passes over them one by one: 0.4 s a megabyte."""
    few, many = 1_000 // len(filler), 2 * MAX_FILL_BYTES // len(filler)

    assert is_the_picture(with_header(filler * few))
    with pytest.raises(ImageDecodeError, match="65536 bytes between segments"):
        decoded(with_header(filler * many))


def test_a_header_that_is_all_fill_and_never_ends_is_counted():
    """There is no next marker at which it could be seen."""
    with pytest.raises(ImageDecodeError, match="bytes between segments"):
        decoded(b"\xff\xd8" + b"\xff" * 2 * MAX_FILL_BYTES)


@pytest.mark.parametrize("marker", [COMMENT, 0xE5, 0xDD, 0xC0, 0xD0, 0xD9, 0xF7])
def test_segments_are_counted(marker):
    """Those that Pillow gives a length and those that it does not: 1 µs each."""
    bare = marker in {0xD0, 0xD9, 0xF7}
    one = bytes((0xFF, marker)) if bare else segment(marker)

    with pytest.raises(ImageDecodeError, match="more than 1000 segments"):
        decoded(with_header(one * (MAX_SEGMENTS + 1)))


def test_hundreds_of_full_segments_are_fine():
    """Panoramas and thermal cameras write megabytes of them."""
    assert is_the_picture(with_header(segment(0xE2, bytes(FULL)) * 100))


@pytest.mark.parametrize(
    ("marker", "start"),
    [(APP1, b"Exif\0\0"), (APP13, b"Photoshop 3.0\0"), (TABLE, b"\0")],
)
def test_segments_that_are_taken_apart_are_counted_in_bytes(marker, start):
    """Pillow joins EXIF anew at each piece: the cost grew with the square."""
    one = segment(marker, start + bytes(FULL))

    with pytest.raises(ImageDecodeError, match="1048576 bytes of tables and EXIF"):
        decoded(with_header(one * (MAX_PARSED_BYTES // FULL + 1)))


def test_a_segment_of_no_known_kind_hides_nothing():
    """Pillow does not believe the length of FF F0, and walks through what it covers."""
    hidden = b"\xff\xf0\xff\xff" + b"\xff" * 2 * MAX_FILL_BYTES

    with pytest.raises(ImageDecodeError, match="bytes between segments"):
        decoded(with_header(hidden))


def test_a_jpeg_of_a_hundred_scans_is_the_last_that_is_read():
    """Each scan walks all pixels, and costs its sender a few bytes."""
    assert decoded(jpeg_with_scans(100)).info.format == "JPEG"
    with pytest.raises(ImageDecodeError, match="101 scans; at most 100"):
        decoded(jpeg_with_scans(101))


@given(st.lists(st.sampled_from([b"\xff", b"\xda", b"\0"])).map(b"".join))
def test_scans_are_counted_wherever_they_start(data):
    """At even places and at odd ones."""
    assert scan_starts(data) == data.count(b"\xff\xda")


def test_large_images_may_have_fewer_scans():
    """A hundred scans of 50 megapixels took 3 s, of 300 kilobytes."""
    data = jpeg_with_scans(26)

    check_jpeg_scans(data, pixels=40_000_000)
    with pytest.raises(ImageDecodeError, match="26 scans; at most 25 are accepted"):
        check_jpeg_scans(data, pixels=50_000_000)


def test_what_follows_the_picture_in_a_jpeg_is_not_counted_as_scans():
    """A phone's motion photo has megabytes of video after the picture."""
    video = b"\x00\x01\xff\xda\x02" * 500

    result = decoded(encode(picture(), "JPEG", quality=95) + video)

    assert difference(result.image, picture()) < 8


def test_what_a_jpeg_carries_in_its_metadata_is_not_counted_as_scans():
    """A profile or a preview may hold any bytes."""
    profile = b"\xff\xda" * 500

    result = decoded(encode(picture(), "JPEG", quality=95, icc_profile=profile))

    assert difference(result.image, picture()) < 8


def test_scans_behind_metadata_are_counted_all_the_same():
    """A false end of the image inside a segment hides nothing."""
    hidden = jpeg_with_scans(101)
    comment = b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"

    with pytest.raises(ImageDecodeError, match="101 scans"):
        decoded(hidden[:2] + comment + hidden[2:])


def test_a_reserved_marker_within_the_pixels_hides_no_scans():
    """Where libjpeg looks for a restart, it passes over one, but not over its length:
    65 KB decoded for 11 s."""
    start = segment(0xDA, b"\x01\x01\x00\x00\x00\x00")
    hidden = start * (FULL // len(start))
    huffman = b"\x01" + bytes(16)  # one code of one bit
    data = b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, b"\x00" + b"\x01" * 64),
            segment(0xC2, struct.pack(">BHHB", 8, 500, 500, 1) + b"\x01\x11\x00"),
            segment(0xC4, b"\x00" + huffman),
            segment(0xC4, b"\x10" + huffman),
            segment(0xDD, b"\x00\x01"),  # a restart behind each block
            start,
            b"\x00",
            segment(0x02, hidden),
            b"\xff\xd9",
        )
    )

    with pytest.raises(ImageDecodeError, match=r"has 6501 scans; at most 100"):
        decoded(data)


def test_exif_of_the_usual_size_is_read():
    """Its orientation counts."""
    assert is_the_picture(oriented("JPEG", 6))


def test_exif_in_pieces_is_read_as_one():
    """Some cameras have more than fits into one segment."""
    exif = Image.Exif()
    exif[0x0112] = 3
    exif[0x010E] = "x" * 100_000
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    pieces = [block[i : i + FULL] for i in range(0, len(block), FULL)]
    upside_down = encode(np.rot90(picture(), 2), "JPEG", quality=95)
    data = upside_down[:2] + b"".join(
        segment(APP1, b"Exif\0\0" + piece) for piece in pieces
    )

    assert is_the_picture(data + upside_down[2:])


def test_what_follows_the_picture_is_none_of_its_scans():
    """A phone puts a video there, in which the marker may occur at any place."""
    video = b"\0\2" + b"\xff\xda\0\2" * 200

    check_jpeg_scans(PLAIN + video, pixels=48 * 32)


def test_markers_within_the_pixels_are_no_segments_of_the_header():
    """A tall picture with one at each row of blocks has more than any header."""
    rows = MAX_SEGMENTS + 100
    tall = Image.new("L", (8, 8 * rows))

    data = encode(tall, "JPEG", restart_marker_rows=1)

    assert len(re.findall(rb"\xff[\xd0-\xd7]", data)) > MAX_SEGMENTS
    assert decoded(data).info.height == 8 * rows


def test_the_scans_of_a_picture_with_others_behind_it_are_counted_too():
    """Pillow calls that another format; the picture is the same."""
    several = encode(
        picture(), "MPO", save_all=True, append_images=[Image.new("L", (8, 8))]
    )

    with (
        Image.open(BytesIO(several)) as image,
        pytest.raises(ImageDecodeError, match="has 200 scans"),
    ):
        check_opened(image, jpeg_with_scans(200), max_pixels=10_000)
    assert image.format == "MPO"
