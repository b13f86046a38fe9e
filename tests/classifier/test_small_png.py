"""A plain small PNG is read to the same pixels as by Pillow's reader, or left to it."""

import struct
import zlib
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from classifier.decode import DecodeLimits, decode
from classifier.errors import ImageTooLargeError
from classifier.small_png import MAX_BYTES, MAX_PIXELS, read_small_png
from tests.classifier.files import chunk, encode, oriented, picture

SIGNATURE, END = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
PICTURE = Image.fromarray(picture(24, 20))
# By color type: Pillow's mode, samples a pixel.
COLORS = {0: ("L", 1), 2: ("RGB", 3)}
many = settings(max_examples=200, deadline=None)


def plain(
    width: int, height: int, color: int, *packed: bytes, bits: int = 8, way: int = 0
) -> bytes:
    """A PNG whose pixels are packed in these pieces; of `way` 1 it is interlaced."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, way)
    pieces = b"".join(chunk(b"IDAT", piece) for piece in packed)
    return SIGNATURE + chunk(b"IHDR", header) + pieces + END


def by_pillow(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data), formats=["PNG"])
    image.load()
    return image


def same(found: Image.Image, data: bytes) -> bool:
    expected = by_pillow(data)
    assert (found.mode, found.size) == (expected.mode, expected.size)
    return found.tobytes() == expected.tobytes()


@st.composite
def packed_rows(draw):
    """Width, height, color type, and rows as a PNG holds them: a filter, then bytes."""
    width, height = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    color = draw(st.sampled_from(sorted(COLORS)))
    row = width * COLORS[color][1]
    rows = [
        bytes([draw(st.integers(0, 4))]) + draw(st.binary(min_size=row, max_size=row))
        for _ in range(height)
    ]
    return width, height, color, b"".join(rows)


@many
@given(packed_rows(), st.integers(0, 9), st.lists(st.integers(0, 400), max_size=3))
def test_every_filter_and_any_cut_into_chunks_gives_pillows_pixels(file, level, cuts):
    """Encoders choose a filter for each row, and cut where their buffer is full."""
    width, height, color, rows = file
    packed = zlib.compress(rows, level)
    bounds = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    pieces = [packed[begin:end] for begin, end in pairwise(bounds)]
    data = plain(width, height, color, *pieces)

    found = read_small_png(data)

    assert found is not None
    assert same(found, data)


@many
@given(packed_rows(), st.integers(0, 300), st.integers(1, 255))
@example((1, 1, 0, b"\x05\x00"), 300, 1)  # a filter that there is not
def test_where_pixels_are_damaged_it_reads_what_pillow_reads_or_nothing(
    file, place, change
):
    """The checksums are right here: only unpacking can tell."""
    width, height, color, rows = file
    packed = bytearray(zlib.compress(rows))
    if place < len(packed):
        packed[place] ^= change
    data = plain(width, height, color, bytes(packed))

    found = read_small_png(data)

    assert found is None or same(found, data)


@many
@given(st.integers(0, 200), st.integers(1, 255))
def test_a_damaged_file_is_left_to_pillow(place, change):
    """A byte is another one, anywhere: some checksum is wrong, or nothing was read."""
    data = bytearray(encode(PICTURE.convert("L"), "PNG"))
    if place >= len(data):
        return
    data[place] ^= change

    assert read_small_png(bytes(data)) is None


@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decoding_finds_the_same_with_and_without_it(mode, color, monkeypatch):
    """Pixels, size, format, and what the sender is told."""
    data = encode(PICTURE.convert(mode), "PNG")
    assert read_small_png(data) is not None

    def found():
        read = decode(data, color=color, background=(1, 2, 3), short_side=16)
        return np.asarray(read.image).tobytes(), read.image.mode, read[1:]

    here = found()
    monkeypatch.setattr("classifier.decode.read_small_png", lambda _: None)
    assert here == found()


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "an orientation may hide here")
    return info


DOT = zlib.compress(b"\0\0")  # one row of one black pixel
OTHERS = {
    "alpha": encode(PICTURE.convert("RGBA"), "PNG"),
    "gray and alpha": encode(PICTURE.convert("LA"), "PNG"),
    "a palette": encode(PICTURE.convert("P"), "PNG"),
    "one bit": plain(1, 1, 0, DOT, bits=1),
    "16 bits": encode(PICTURE.convert("L").convert("I;16"), "PNG"),
    "a transparent color": encode(PICTURE, "PNG", transparency=(1, 2, 3)),
    "an orientation": oriented("PNG", 6),
    "an orientation behind the pixels": plain(1, 1, 0, DOT).removesuffix(END)
    + chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0")
    + END,
    "a text": encode(PICTURE, "PNG", pnginfo=text()),
    "a resolution": encode(PICTURE, "PNG", dpi=(72, 72)),
    "interlaced": plain(1, 1, 0, DOT, way=1),
    "the signature alone": SIGNATURE,
    "half a header": plain(1, 1, 0)[:20],
    "too many bytes": plain(1, 1, 0, DOT + bytes(MAX_BYTES)),
    "too many pixels": encode(Image.new("L", (MAX_PIXELS + 1, 1)), "PNG"),
    "no pixels": plain(0, 3, 0, zlib.compress(b"")),
    "too few pixels": plain(9, 9, 0, DOT),
    "no end": plain(1, 1, 0, DOT).removesuffix(END),
    "a cut end": plain(1, 1, 0, DOT)[:-1],
    "a huge chunk": plain(1, 1, 0).removesuffix(END) + b"\xff\xff\xff\xffIDAT",
    "a JPEG": encode(PICTURE, "JPEG"),
    "nothing": b"",
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_plain_is_left_to_pillow(name):
    """It knows what transparency, orientation and the rest mean."""
    assert read_small_png(OTHERS[name]) is None


def test_what_stands_behind_the_end_does_not_matter():
    """As for Pillow."""
    data = encode(PICTURE, "PNG")

    found = read_small_png(data + b"trailing")

    assert found is not None
    assert same(found, data)


def test_the_limits_hold_for_small_images_too():
    """A service may accept less than what counts as small here."""
    data = encode(PICTURE, "PNG")
    limits = DecodeLimits(max_pixels=24 * 20 - 1)

    with pytest.raises(ImageTooLargeError, match="24x20"):
        decode(data, color="rgb", background=(0, 0, 0), short_side=8, limits=limits)
