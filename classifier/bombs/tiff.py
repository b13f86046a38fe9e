"""TIFF: directories that become a million objects, and tiles beyond the image.

EXIF is a TIFF without an image: three directories behind the first.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from classifier.bombs.budget import Budget
from classifier.bombs.jpeg import MAX_WALKED_PIXELS, scan_places
from classifier.errors import ImageDecodeError, ImageTooLargeError

# Pillow makes Python objects of each entry, strip, tile and number: 5 microseconds and
# 250 bytes for two bytes of a file. One-row strips of the longest side that is accepted
# fit, and so do 16-bit tables.
MAX_ENTRIES = MAX_VALUES = 65_536
# Of the directories of EXIF Pillow makes them all, asked or not: 5 microseconds a
# number, and 22 where it writes the EXIF of an AVIF anew. Cameras store hundreds.
MAX_EXIF_NUMBERS = 4_096
# Tiles are unpacked whole, and may all share their data: 47 KB with 16 of 48 megapixels
# took 1.7 s, and a file can name 65,536. Of an image that is no smaller than a tile,
# either way, all together come to less than four times its pixels.
MAX_TILED = 4

# TIFF 6.0, sections 2, 8 and 15
BYTE, ASCII, UNDEFINED = 1, 2, 7  # kept as the bytes they are
WIDTH, LENGTH, COMPRESSION, STRIP_OFFSETS, STRIP_BYTES = 256, 257, 259, 273, 279
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
JPEG = 7  # of compressions
DIRECTORIES = frozenset((34665, 34853, 40965))  # EXIF, GPS, interoperability
# Types that Pillow takes the place of a directory from, in the letters of `struct`.
PLACES: Mapping[int, str] = {
    3: "H",
    4: "I",
    6: "b",
    8: "h",
    9: "i",
    13: "I",
    16: "Q",
}


class Entry(NamedTuple):
    """An entry of a directory; `place` is where another one is, if it says that."""

    tag: int
    kind: int
    numbers: int
    place: int | None


def check_tiff_directory(data: bytes) -> None:
    """Refuse a TIFF of too many entries, strips, tiles or values in one entry.

    Raises:
        ImageDecodeError
    """
    places = []
    for number, entry in enumerate(_entries(data, _first(data)), start=1):
        if number > MAX_ENTRIES:
            raise ImageDecodeError(f"the TIFF has more than {MAX_ENTRIES} entries")
        if entry.numbers > MAX_VALUES and entry.kind not in (BYTE, ASCII, UNDEFINED):
            what = (
                "strips or tiles"
                if entry.tag in (STRIP_OFFSETS, TILE_OFFSETS)
                else f"values in its entry {entry.tag}"
            )
            raise ImageDecodeError(
                f"the TIFF has {entry.numbers} {what}; "
                f"at most {MAX_VALUES} are accepted"
            )
        places.append(entry.place)
    _check_numbers(data, places)


def check_exif(block: bytes, budget: Budget) -> None:
    """Refuse EXIF, without its head, of too many numbers in all its directories.

    Raises:
        ImageDecodeError
        IndexError: the budget ends.
    """
    budget.take_pieces(_check_numbers(block, [_first(block)]))


def _check_numbers(data: bytes, places: list[int | None]) -> int:
    """Walk the directories at these places, and all that they point to.

    Returns how many entries they have.
    """
    count = 0
    seen: set[int | None] = {None}
    left = MAX_EXIF_NUMBERS
    while places:
        place = places.pop()
        if place in seen:
            continue
        seen.add(place)
        for entry in _entries(data, place):
            count += 1
            places.append(entry.place)
            # Pillow keeps texts as they are, and skips what is longer than the file
            is_one = entry.kind in (BYTE, ASCII, UNDEFINED) or entry.numbers > len(data)
            left -= 1 if is_one else max(1, entry.numbers)
            if left < 0:
                raise ImageDecodeError(
                    f"the EXIF has more than {MAX_EXIF_NUMBERS} numbers"
                )
    return count


def _entries(data: bytes, start: int | None) -> Iterator[Entry]:
    """Those of the directory at `start`, up to where the data end."""
    if start is None:
        return
    order, big = _order(data), _is_big(data)
    head = struct.Struct(f"{order}{'Q' if big else 'H'}")
    fields = struct.Struct(f"{order}HH{'Q8x' if big else 'I4x'}")
    try:
        [entries] = head.unpack_from(data, start)
        at = start + head.size
        for _ in range(entries):
            tag, kind, count = fields.unpack_from(data, at)
            at += fields.size
            place = _place(data, kind, count, at) if tag in DIRECTORIES else None
            yield Entry(tag, kind, count, place)
    except (struct.error, OverflowError):
        return  # no directory, or cut off: Pillow refuses it, or has what is there


def _place(data: bytes, kind: int, count: int, end: int) -> int | None:
    """The first number of an entry that ends at `end`; none where there is none."""
    order = _order(data)
    number = struct.Struct(order + PLACES.get(kind, "x"))
    wide = struct.Struct(f"{order}{'Q' if _is_big(data) else 'I'}")
    at = end - wide.size
    try:
        if count * number.size > wide.size:  # the entry says where its numbers are
            [at] = wide.unpack_from(data, at)
        [place] = number.unpack_from(data, at) if count else [-1]
    except (struct.error, OverflowError, ValueError):
        return None
    return place if place >= 0 else None


def _first(data: bytes) -> int | None:
    """Where the first directory is; none in a file that ends before it says so."""
    at, end = (8, 16) if _is_big(data) else (4, 8)
    if end > len(data):
        return None
    return int.from_bytes(data[at:end], "little" if data[:2] == b"II" else "big")


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _is_big(data: bytes) -> bool:
    """Whether it is a BigTIFF, of 64-bit offsets: 43, where Pillow looks for it."""
    return data[2:3] == b"+"


def check_tiff_tiles(tags: Mapping[int, object], max_pixels: int) -> int:
    """Refuse a huge tile, whose buffer is allocated whole, however small the image; and
    tiles that reach far beyond the image.

    Returns:
        the pixels of all tiles.

    Raises:
        ImageDecodeError: the tiles' sides are no numbers.
        ImageTooLargeError: one has more than `max_pixels`, or all together have
            `MAX_TILED` times as many.
    """
    width, length = tags.get(TILE_WIDTH, 1), tags.get(TILE_LENGTH, 1)
    # a file may give any type; text times a number would be gigabytes of text
    if not (isinstance(width, int) and isinstance(length, int)):
        raise ImageDecodeError("the TIFF is damaged: its tiles have no size")
    if width * length > max_pixels:
        raise ImageTooLargeError(
            f"the image declares tiles of {width}x{length} pixels; "
            f"at most {max_pixels} pixels are accepted"
        )
    across, down = _padded(tags.get(WIDTH), width), _padded(tags.get(LENGTH), length)
    if across * down > MAX_TILED * max_pixels:
        raise ImageTooLargeError(
            f"the image's tiles of {width}x{length} pixels cover {across}x{down}; "
            f"at most {MAX_TILED * max_pixels} pixels are accepted"
        )
    return across * down


def _padded(side: object, tile: int) -> int:
    """The side of all tiles together that an image's side needs."""
    if not isinstance(side, int) or tile < 1:
        return 0  # Pillow refuses it
    return -(-side // tile) * tile


def check_tiff_scans(tags: Mapping[int, object], data: bytes, pixels: int) -> None:
    """Refuse JPEG in strips or tiles that walks `pixels` too often; see jpeg.py.

    Raises:
        ImageDecodeError: it does, or the places of the strips are no numbers.
    """
    if tags.get(COMPRESSION) != JPEG:
        return
    places = scan_places(data)
    # libtiff takes either for the other
    for offsets, lengths in ((STRIP_OFFSETS, STRIP_BYTES), (TILE_OFFSETS, TILE_BYTES)):
        starts = _integers(tags.get(offsets), len(data))
        sizes = _integers(tags.get(lengths), len(data))
        if len(sizes) != len(starts) or not sizes.all():  # libtiff guesses
            sizes = np.full(len(starts), len(data))
        first, last = np.searchsorted(places, [starts, starts + sizes])
        # Of those that are listed, libtiff takes as many as it needs from the front.
        scans = (last - first).cumsum() / np.arange(1, len(starts) + 1)
        walked = int(scans.max(initial=0) * pixels)
        if walked > MAX_WALKED_PIXELS:
            raise ImageDecodeError(
                f"the JPEG in the TIFF has {walked} pixels in all its scans; "
                f"at most {MAX_WALKED_PIXELS} are accepted"
            )


def _integers(values: object, most: int) -> npt.NDArray[np.int64]:
    """A number or numbers of a tag, each at most `most`."""
    try:
        numbers = np.array(values if values is not None else (), np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ImageDecodeError("the TIFF is damaged: its strips are nowhere") from error
    return numbers.ravel().clip(0, most)
