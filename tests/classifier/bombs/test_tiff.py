"""TIFF directories of many entries and values, and tiles beyond the image."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from classifier.bombs import tiff as module
from classifier.bombs.tiff import (
    MAX_ENTRIES,
    MAX_EXIF_NUMBERS,
    MAX_VALUES,
    check_tiff_scans,
    check_tiff_tiles,
)
from classifier.decode import DecodeLimits
from classifier.errors import ImageDecodeError, ImageTooLargeError
from tests.classifier.files import directory, encode, tiff
from tests.classifier.test_decode import decoded

SHORT, LONG, RATIONAL = 3, 4, 5
EXIF, GPS, INTEROPERABILITY = 34665, 34853, 40965


@pytest.mark.parametrize("tags", [{322: "a", 323: 9}, {322: 9, 323: b"a"}])
def test_a_tile_whose_side_is_a_text_is_damage(tags):
    """Times a number it would be that many texts."""
    with pytest.raises(ImageDecodeError, match="its tiles have no size"):
        check_tiff_tiles(tags, 1_000)


def test_a_tiff_of_too_many_strips_is_refused():
    """Each costs two bytes to send and a Python object to read: 25 s for 10 MB."""
    count = MAX_VALUES + 1
    data = tiff((273, 3, count, struct.pack("<H", 8) * count), (278, 4, 1, 1))

    with pytest.raises(ImageDecodeError, match=f"{count} strips or tiles; at most"):
        decoded(data)


@pytest.mark.parametrize("order", ["<", ">"])
def test_big_tiff_is_looked_into_as_well(order):
    """64-bit offsets are another layout of the same directory."""
    head = struct.pack(f"{order}2sHHHQ", b"II" if order == "<" else b"MM", 43, 8, 0, 16)
    if order == ">":  # Pillow looks for 43 in the third byte, whatever the order
        head = b"MM\x2b\x00" + head[4:]
    entry = struct.pack(f"{order}HHQQ", 324, 4, 10**6, 0)
    directory = struct.pack(f"{order}Q", 1) + entry + bytes(64)

    with pytest.raises(ImageDecodeError, match="1000000 strips or tiles"):
        decoded(head + directory)


@pytest.mark.parametrize("start", [0, 4, 10**6, 2**32 - 1])
def test_a_directory_that_is_not_there_is_damage(start):
    """Offsets of a hostile file point anywhere."""
    with pytest.raises(ImageDecodeError):
        decoded(b"II*\x00" + struct.pack("<I", start) + bytes(16))


def test_strips_of_one_row_are_fine():
    """Many writers put each row into a strip of its own."""
    side = 64
    rows = np.arange(side, dtype=np.uint8).repeat(side).tobytes()
    at = len(tiff((273, 4, side, bytes(4 * side)), (278, 4, 1, 1), pixels=b""))
    offsets = struct.pack(f"<{side}I", *(at + side * row for row in range(side)))

    result = decoded(
        tiff((273, 4, side, offsets), (278, 4, 1, 1), pixels=rows), color="gray"
    )

    assert np.asarray(result.image)[:, 0].tolist() == list(range(side))


def test_a_tile_larger_than_the_cap_is_refused():
    """Its buffer is allocated whole, however small the image."""
    data = tiff((322, 4, 1, 60_000), (323, 4, 1, 60_000))

    with pytest.raises(ImageTooLargeError, match="tiles of 60000x60000 pixels"):
        decoded(data)


def tiled(width: int, length: int, *, tile: tuple[int, int], share: int) -> bytes:
    """A flat TIFF of tiles, which all have the same data; `share` is their number."""
    content = zlib.compress(bytes(tile[0] * tile[1]))
    at = 8 + 2 + 12 * 10 + 4
    places = struct.pack(f"<{share}I", *[at + 8 * share] * share)
    sizes = struct.pack(f"<{share}I", *[len(content)] * share)
    first = directory(
        8,
        (256, LONG, 1, width),
        (257, LONG, 1, length),
        (258, SHORT, 1, 8),
        (259, SHORT, 1, 8),  # deflate
        (262, SHORT, 1, 1),
        (277, SHORT, 1, 1),
        (322, LONG, 1, tile[0]),
        (323, LONG, 1, tile[1]),
        (324, LONG, share, places),
        (325, LONG, share, sizes),
    )
    return b"II*\0\x08\0\0\0" + first + content


def test_tiles_that_reach_far_beyond_the_image_are_refused():
    """They are unpacked whole, each anew: 100 KB could have taken minutes."""
    fine, many = (
        tiled(16 * n, 1, tile=(16, 10_000), share=n) for n in (8, 100_000 // 10_000 + 1)
    )

    assert decoded(fine, limits=DecodeLimits(max_pixels=400_000)).info.width == 128
    with pytest.raises(ImageTooLargeError, match="tiles of 16x10000 pixels cover 176x"):
        decoded(many, limits=DecodeLimits(max_pixels=400_000))


@pytest.mark.parametrize(
    ("tag", "kind", "size"), [(282, RATIONAL, 8), (258, SHORT, 2), (320, SHORT, 2)]
)
def test_a_tag_of_too_many_values_is_refused(tag, kind, size):
    """Pillow makes a fraction of each: 20 MB of resolution took 5 s and 400 MB."""
    count = MAX_VALUES + 1

    with pytest.raises(ImageDecodeError, match=f"{count} values in its entry {tag}"):
        decoded(tiff((tag, kind, count, b"\1" * size * count)))


def test_bytes_and_text_may_be_long():
    """Profiles and notes are kept as they are."""
    note = b"a" * 1_000_000

    assert decoded(tiff((270, 2, len(note), note))).info.format == "TIFF"


def test_a_big_tiff_of_too_many_entries_is_refused():
    """A directory of 64-bit offsets may declare any number of them."""
    entries = struct.pack("<HHQQ", 700, 1, 2**40, 8) * (MAX_ENTRIES + 1)
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16)

    with pytest.raises(ImageDecodeError, match="more than 65536 entries"):
        decoded(head + struct.pack("<Q", MAX_ENTRIES + 1) + entries)


def with_exif(count: int, *path: int) -> bytes:
    """A TIFF whose directory at the end of `path` has an entry of `count` fractions."""
    at = len(tiff((path[0], LONG, 1, 0)))
    data = tiff((path[0], LONG, 1, at))
    for tag in path[1:]:
        at = len(data) + len(directory(0, (tag, LONG, 1, 0)))
        data += directory(len(data), (tag, LONG, 1, at))
    return data + directory(at, (282, RATIONAL, count, b"\1" * 8 * count))


@pytest.mark.parametrize("path", [(EXIF,), (GPS,), (EXIF, INTEROPERABILITY)])
def test_the_directories_of_exif_are_counted(path):
    """Pillow makes objects of all that is in them: 3 s for two megabytes."""
    fine, many = MAX_EXIF_NUMBERS - len(path) + 1, MAX_EXIF_NUMBERS + 1

    assert decoded(with_exif(fine, *path)).info.format == "TIFF"
    with pytest.raises(ImageDecodeError, match="EXIF has more than 4096 numbers"):
        decoded(with_exif(many, *path))


def test_the_directories_of_exif_are_counted_together():
    """Each alone has fewer than are accepted, and their numbers may be the same."""
    at = len(tiff((EXIF, LONG, 1, 0), (GPS, LONG, 1, 0)))
    first = directory(at, (282, RATIONAL, 3_000, bytes(24_000)))
    second = directory(at + len(first), (2, RATIONAL, 3_000, bytes(24_000)))
    data = tiff((EXIF, LONG, 1, at), (GPS, LONG, 1, at + len(first)))

    with pytest.raises(ImageDecodeError, match="EXIF has more than 4096 numbers"):
        decoded(data + first + second)


@pytest.mark.parametrize("place", [0, 8, 10**6, 2**32 - 1])
def test_a_directory_of_exif_that_is_not_there_is_no_harm(place):
    """It may be missing, or the first once more."""
    assert decoded(tiff((EXIF, LONG, 1, place))).info.format == "TIFF"


def in_jpeg(scans: int, *, is_sized: bool) -> bytes:
    """A TIFF of 64x64 pixels, in one strip of JPEG with so many more scans."""
    jpeg = encode(Image.new("L", (64, 64)), "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    pixels = jpeg[:-2] + last * scans + jpeg[-2:]
    size = len(pixels) if is_sized else 0
    return tiff((259, SHORT, 1, 7), (279, LONG, 1, size), pixels=pixels)


@pytest.mark.parametrize("is_sized", [True, False])
def test_jpeg_in_a_tiff_may_not_walk_its_pixels_too_often(monkeypatch, is_sized):
    """As JPEG alone may not: 200 KB took 6 s."""
    monkeypatch.setattr(module, "MAX_WALKED_PIXELS", 20 * 64 * 64)

    assert decoded(in_jpeg(5, is_sized=is_sized)).info.width == 64
    with pytest.raises(ImageDecodeError, match="in all its scans; at most 81920"):
        decoded(in_jpeg(20, is_sized=is_sized))


@pytest.mark.parametrize("places", ["a", (2**64,), (b"a",)])
def test_strips_that_are_nowhere_are_damage(places):
    """A file may give any type."""
    with pytest.raises(ImageDecodeError, match="its strips are nowhere"):
        check_tiff_scans({259: 7, 273: places}, b"", 64)


def test_tiles_are_looked_at_beside_strips():
    """A file may name both, and scans may be shared by all that it names."""
    data = b"\xff\xda" * 50

    with pytest.raises(ImageDecodeError, match="has 2500000000 pixels in all its"):
        check_tiff_scans(
            {259: 7, 273: 0, 279: 2, 324: (0, 0), 325: (99, 100)}, data, 50_000_000
        )


def test_strips_that_are_listed_in_vain_hide_no_scans():
    """libtiff takes one of these, and leaves 9,999 alone."""
    data = b"\xff\xda" * 99 + b"\0" * 10_000
    starts = (0, *range(200, 200 + 9_999))
    sizes = (200, *[1] * 9_999)

    with pytest.raises(ImageDecodeError, match="has 4950000000 pixels in all its"):
        check_tiff_scans({259: 7, 273: starts, 279: sizes}, data, 50_000_000)


def test_a_tiff_of_many_strips_of_jpeg_is_read():
    """Each has a scan of its own, of its own pixels."""
    data = b"\xff\xda\0\0" * 1000
    starts, sizes = tuple(range(0, 4000, 4)), (4,) * 1000

    check_tiff_scans({259: 7, 273: starts, 279: sizes}, data, 50_000_000)
