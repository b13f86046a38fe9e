"""Small files that ask for much: refused before memory or time grows."""

import struct

import numpy as np
import pytest
from PIL import Image

from classifier.bombs import MAX_TIFF_CHUNKS
from classifier.decode import DecodeLimits
from classifier.errors import ImageDecodeError, ImageTooLargeError
from tests.classifier.files import (
    encode,
    jpeg_with_scans,
    picture,
    png_that_declares,
    tiff,
)
from tests.classifier.processes import peak_mib, python
from tests.classifier.test_decode import decoded, difference

PIXELS = 50_000_000  # the default cap
SIDE = 3_000  # of images whose memory is looked at
STRIPS = 16 * 2**20  # what does not grow with the image

DECODE = """
import sys
from pathlib import Path
from classifier.decode import decode
from classifier.errors import ImageError

for name in sys.argv[1:]:
    try:
        decode(
            Path(name).read_bytes(),
            color="rgb",
            background=(255, 255, 255),
            short_side=224,
        )
    except ImageError as error:
        print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def idle_mib() -> int:
    """What a process holds that has imported the decoder and has no image."""
    return peak_mib(DECODE)


def test_a_jpeg_of_a_hundred_scans_is_the_last_that_is_read():
    """Each scan walks all pixels, and costs its sender a few bytes."""
    assert decoded(jpeg_with_scans(100)).info.format == "JPEG"
    with pytest.raises(ImageDecodeError, match="101 scans; at most 100"):
        decoded(jpeg_with_scans(101))


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


def test_a_tiff_of_too_many_strips_is_refused():
    """Each costs two bytes to send and a Python object to read: 25 s for 10 MB."""
    count = MAX_TIFF_CHUNKS + 1
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


def test_a_tile_whose_sides_are_text_costs_nothing(tmp_path, idle_mib):
    """Text times a number is gigabytes of text."""
    bomb = tiff((322, 2, 9, b"AAAAAAAA\0"), (323, 4, 1, 400_000_000))
    (tmp_path / "bomb.tif").write_bytes(bomb)

    used = peak_mib(DECODE, tmp_path / "bomb.tif") - idle_mib

    assert used < 50


@pytest.mark.parametrize(
    ("width", "height"),
    [(PIXELS + 1, 1), (7_072, 7_072), (65_536, 2), (2**31 - 1, 2**31 - 1)],
)
def test_a_declared_size_over_the_cap_is_refused(width, height):
    """Whether Pillow's own limit or ours sees it first."""
    with pytest.raises(ImageTooLargeError, match=r"at most \d+ (pixels|a side) are"):
        decoded(png_that_declares(width, height))


def test_refusing_a_bomb_allocates_nothing(tmp_path, idle_mib):
    """The size is checked before a pixel is decoded: 4 gigapixels, a hundred bytes."""
    (tmp_path / "wide.png").write_bytes(png_that_declares(65_000, 65_000))
    (tmp_path / "over.png").write_bytes(png_that_declares(12_000, 12_000))

    result = python(DECODE, *tmp_path.iterdir())
    used = peak_mib(DECODE, *tmp_path.iterdir()) - idle_mib

    assert result.stdout.split() == ["ImageTooLargeError"] * 2
    assert used < 50


def test_a_file_that_declares_much_and_ends_there_is_damaged():
    """Over the cap it is too large; under it the missing pixels are the trouble."""
    limits = DecodeLimits(max_pixels=10_000)

    with pytest.raises(ImageTooLargeError):
        decoded(png_that_declares(200, 200), limits=limits)
    with pytest.raises(ImageDecodeError):
        decoded(png_that_declares(100, 100), limits=limits)


# Bytes a pixel that `DecodeLimits` names, on the mode that needs most of them.
WORST = {
    "PNG": ("RGBA", 9, {"compress_level": 1}),
    "JPEG": ("CMYK", 9, {"progressive": True}),
    "TIFF": ("CMYK", 9, {"compression": "tiff_lzw"}),
    "GIF": ("P", 9, {}),
    "AVIF": ("RGBA", 12, {"speed": 10}),
    "WEBP": ("RGBA", 17, {"method": 0}),
}


@pytest.mark.parametrize("fmt", WORST)
def test_a_large_image_takes_the_memory_that_the_limits_promise(
    fmt, tmp_path, idle_mib
):
    """Conversions work in strips and large ones on less than all pixels."""
    mode, promised, how = WORST[fmt]
    Image.new(mode, (SIDE, SIDE)).save(tmp_path / "large", fmt, **how)

    used = peak_mib(DECODE, tmp_path / "large") - idle_mib

    assert used * 2**20 < promised * SIDE**2 + STRIPS
