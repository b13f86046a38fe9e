"""AVIF files whose frames are not what their boxes declare."""

import struct

import numpy as np
import pytest
from PIL import Image

from classifier.bombs.avif import check_avif_frames
from classifier.bombs.budget import MAX_PIECES
from classifier.bombs.tiff import MAX_EXIF_NUMBERS
from classifier.errors import ImageDecodeError, ImageTooLargeError
from tests.classifier.bombs.test_memory import DECODE
from tests.classifier.files import directory, encode, picture
from tests.classifier.processes import peak_mib
from tests.classifier.test_decode import decoded, difference
from tests.lines import lines_executed

CAP = 10_000
UNITS = b"\x12\0"  # the smallest unit of AV1, which says nothing

FRAME_HEADER, TILES, FRAME = b"\x1a\0", b"\x22\0", b"\x32\0"

# An AV1 sequence header of a still picture, 5 bytes: 13 bits for each side.
REDUCED = 0b000_1_1_00000_1100_1100


def sequence_header(width: int, height: int) -> bytes:
    """A unit of AV1 that allows frames of that size."""
    bits = REDUCED << 26 | (width - 1) << 13 | (height - 1)
    content = (bits << 4).to_bytes(6)
    return bytes((0x0A, len(content))) + content


def timed_header(*, zeros: int = 0, points: int = 1) -> bytes:
    """A unit up to a number of that many zeros, or of that many operating points."""
    if zeros:
        return b"\x08\x04" + bytes(7) + b"\x02" + bytes(zeros // 8)
    # profile, no timing, no delay, points - 1, and 17 bits of each; 1 bit a side
    bits = f"{0:07b}{points - 1:05b}" + "0" * 17 * points
    content = int(bits.ljust(8 * 80, "0"), 2).to_bytes(80)
    return bytes((0x0A, len(content))) + content


def box(kind: bytes, *parts: bytes) -> bytes:
    """One box of the file format."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def avif(*items: tuple[bytes, bytes], readings: int = 1) -> bytes:
    """A file of items, their data in `idat`, each made of `readings` equal extents."""
    kinds, places, contents = b"", b"", b""
    for number, (kind, content) in enumerate(items, start=1):
        kinds += box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", number, 0, kind))
        extent = struct.pack(">II", len(contents), len(content))
        places += struct.pack(">HHHH", number, 1, 0, readings) + extent * readings
        contents += content
    return box(b"ftyp", b"avif", bytes(4), b"avifmif1") + box(
        b"meta",
        bytes(4),
        box(b"iinf", bytes(4), struct.pack(">H", len(items)), kinds),
        box(b"iloc", b"\1\0\0\0\x44\0", struct.pack(">H", len(items)), places),
        box(b"idat", contents),
    )


def hidden(width: int, height: int) -> bytes:
    """An AVIF of one flat color that declares 64x64."""
    data = encode(Image.new("RGB", (width, height)), "AVIF", speed=10)
    place = b"ispe" + bytes(4)
    declared = place + struct.pack(">II", width, height)
    assert declared in data
    return data.replace(declared, place + struct.pack(">II", 64, 64))


def test_a_frame_larger_than_declared_is_refused():
    """Pillow believes the box, libavif the frame: 3 KB took a gigabyte."""
    assert decoded(hidden(640, 480)).info.width == 64
    with pytest.raises(ImageTooLargeError, match="frames of up to 8000x7000 pixels"):
        decoded(hidden(8_000, 7_000))


def test_refusing_it_allocates_nothing(tmp_path):
    """The headers are read, not the frames."""
    (tmp_path / "hidden.avif").write_bytes(hidden(8_000, 7_000))

    used = peak_mib(DECODE, tmp_path / "hidden.avif") - peak_mib(DECODE)

    assert used < 50


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
@pytest.mark.parametrize("side", [1, 16, 17, 100])
def test_honest_files_are_read(mode, side):
    """Of any size, with and without alpha, at exactly the cap."""
    data = encode(Image.new(mode, (side, side)), "AVIF", speed=10)

    check_avif_frames(data, max_pixels=side * side)
    if side > 1:
        with pytest.raises(ImageTooLargeError):
            check_avif_frames(data, max_pixels=side * side - 1)


def test_a_sequence_is_judged_by_its_first_image():
    """Its frames may each have another size, up to a power of two."""
    frames = [Image.fromarray(np.roll(picture(), 9 * i, axis=1)) for i in range(3)]
    data = encode(frames[0], "AVIF", save_all=True, append_images=frames[1:], speed=10)

    check_avif_frames(data, max_pixels=64 * 32)
    assert difference(decoded(data).image, picture()) < 8
    with pytest.raises(ImageTooLargeError, match="64x32 pixels"):
        check_avif_frames(data, max_pixels=64 * 32 - 1)


@pytest.mark.parametrize(
    "items",
    [
        [(b"av01", sequence_header(101, 100))],
        [(b"av01", b"\x12\0" + sequence_header(100, 100) + sequence_header(101, 100))],
        [(b"av01", sequence_header(100, 100) + FRAME * 2)],
        [(b"av01", sequence_header(50, 100) + FRAME_HEADER + TILES + FRAME * 2)],
        [(b"av01", sequence_header(100, 100))] * 4,
        [(b"grid", b"\0\0\0\0" + struct.pack(">HH", 101, 100))],
        [(b"grid", b"\0\1\0\0" + struct.pack(">II", 101, 100))],
    ],
    ids=[
        "frame",
        "second header",
        "second frame",
        "third frame",
        "many items",
        "grid",
        "large grid",
    ],
)
def test_every_way_to_many_pixels_is_seen(items):
    """Frames, headers and frames that follow, many items, and grids of them.

    libavif decodes what is not shown as well: 12 MB could have taken an hour.
    """
    with pytest.raises(ImageTooLargeError, match=f"at most {CAP} pixels"):
        check_avif_frames(avif(*items), max_pixels=CAP)


def test_an_extent_without_a_length_is_all_that_follows():
    """It would seem to hold no frame at all."""
    content = sequence_header(101, 100)
    extent = struct.pack(">II", 0, len(content))

    with pytest.raises(ImageTooLargeError, match="101x100"):
        check_avif_frames(
            avif((b"av01", content)).replace(extent, bytes(8)), max_pixels=CAP
        )


def test_a_box_may_say_its_size_in_eight_bytes():
    """They follow its kind."""
    data = avif((b"av01", sequence_header(101, 100)))
    start = data.index(b"meta") - 4
    size = struct.pack(">I4sQ", 1, b"meta", len(data) - start + 8)

    with pytest.raises(ImageTooLargeError, match="101x100"):
        check_avif_frames(data[:start] + size + data[start + 8 :], max_pixels=CAP)


def test_numbers_of_items_may_be_wide():
    """Four bytes each, in later versions of both tables."""
    content = sequence_header(101, 100)
    kind = box(b"infe", b"\3\0\0\0", struct.pack(">IH4s", 70_000, 0, b"av01"))
    place = struct.pack(">IHHHII", 70_000, 1, 0, 1, 0, len(content))
    one = struct.pack(">I", 1)
    data = box(
        b"meta",
        bytes(4),
        box(b"iinf", b"\1\0\0\0", one, kind),
        box(b"iloc", b"\2\0\0\0\x44\0", one, place),
        box(b"idat", content),
    )

    with pytest.raises(ImageTooLargeError, match="101x100"):
        check_avif_frames(data, max_pixels=CAP)


@pytest.mark.parametrize(
    "items",
    [
        [(b"av01", sequence_header(100, 100))],
        [(b"av01", FRAME + sequence_header(100, 100) + FRAME_HEADER + TILES * 2)],
        [(b"av01", sequence_header(50, 50) + FRAME * 4)],
        [(b"av01", sequence_header(100, 100))] * 3,
        [(b"grid", b"\0\0\0\0" + struct.pack(">HH", 100, 100))],
        [(b"Exif", sequence_header(8_000, 8_000))],
    ],
    ids=[
        "frame",
        "frame in pieces",
        "small frames",
        "with alpha and thumbnail",
        "grid",
        "no image",
    ],
)
def test_no_more_pixels_than_allowed_are_fine(items):
    """What is no image is not looked into."""
    check_avif_frames(avif(*items), max_pixels=CAP)


@pytest.mark.parametrize(
    "data",
    [
        avif((b"av01", sequence_header(9, 9)))[:-2],
        avif((b"av01", b"\x0a\x06")),
        avif((b"av01", b"\x12\0" * 70_000)),
        avif((b"av01", sequence_header(9, 9) * 100), readings=10_000),
        avif((b"av01", timed_header(points=32) * 2_100)),
        avif((b"av01", timed_header(zeros=40_000))),
        avif((b"av01", UNITS * 30_000)) * 3,
        avif(*[(b"av01", UNITS * 30_000)] * 3),
        avif((b"av01", UNITS * 1_000), readings=4) * 2,
        box(b"stbl", box(b"none") * MAX_PIECES),
        box(b"meta", bytes(4), box(b"iloc", b"\0\0\0\0\x44\0\xff\xff", bytes(400_000))),
        box(b"free") * (MAX_PIECES + 1),
        struct.pack(">I4s", 4, b"meta") + bytes(8),
        box(b"meta", bytes(4), box(b"iloc", b"\1\0\0\0\x44\0\xff\xff")),
        box(b"meta", bytes(4), box(b"iinf", bytes(6), box(b"infe"))),
    ],
    ids=[
        "cut off",
        "empty header",
        "units",
        "readings",
        "operating points",
        "zeros",
        "units of many metas",
        "units of many items",
        "readings of many metas",
        "tables",
        "items without data",
        "boxes",
        "size",
        "places",
        "kinds",
    ],
)
def test_broken_boxes_are_damage(data):
    """Too short, or more than any honest file has: in one place or in all of them."""
    with pytest.raises(ImageDecodeError, match="boxes are broken"):
        check_avif_frames(data, max_pixels=CAP)


def cost(data: bytes) -> int:
    """Lines that it takes to refuse a file."""

    def refuse() -> None:
        with pytest.raises(ImageDecodeError):
            check_avif_frames(data, max_pixels=CAP)

    return lines_executed(refuse)


def test_a_number_that_never_begins_costs_nothing():
    """Forty kilobytes of zeros took 3 s, a megabyte half an hour."""
    short, long = (timed_header(zeros=zeros) for zeros in (400, 400_000))

    assert cost(avif((b"av01", long))) == cost(avif((b"av01", short))) < 2_000


def test_extents_that_take_no_bytes_are_not_looked_at_for_long():
    """Any number of them fits into a small file."""
    place = b"\0\0\0\0" + b"\0\0" + struct.pack(">HHHH", 1, 1, 0, 0xFFFF)

    assert cost(box(b"meta", bytes(4), box(b"iloc", place))) < 2_000


@pytest.mark.parametrize("metas", [1, 8])
def test_a_file_has_one_budget(metas):
    """More boxes, each with what one of them may have, are not looked at longer."""
    items = [(b"av01", UNITS * 20_000)] * 4

    assert cost(avif(*items) * metas) < 20 * MAX_PIECES


def exif(*entries: tuple[int, int, int, bytes | int]) -> bytes:
    """EXIF of one directory."""
    return b"II*\0\x08\0\0\0" + directory(8, *entries)


def test_exif_of_many_numbers_is_refused_before_it_is_written_anew():
    """Pillow does that while it opens a turned image: 3 s a megabyte."""

    def turned(count: int) -> bytes:
        fractions = (50_000, 5, count, b"\1" * 8 * count)
        # to be turned to the right: the writer moves that out of the EXIF
        return encode(picture(), "AVIF", exif=exif((274, 3, 1, 6), fractions))

    assert decoded(turned(MAX_EXIF_NUMBERS)).info.width == 32
    with pytest.raises(ImageDecodeError, match="EXIF has more than 4096 numbers"):
        decoded(turned(MAX_EXIF_NUMBERS + 1))


def test_exif_of_many_items_has_the_budget_of_the_file():
    """Each item has fewer entries than are accepted."""
    block = bytes(4) + exif(*[(700, 1, 1, 0)] * 4_000)
    data = avif(*[(b"Exif", block)] * 20)

    with pytest.raises(ImageDecodeError, match="boxes are broken"):
        decoded(data)
