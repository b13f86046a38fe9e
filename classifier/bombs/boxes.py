"""ISO base media file → **boxes**, and the data of the images in them.

ISO/IEC 14496-12, sections 4.2, 8.7 and 8.11. Everything raises IndexError where the
data end too soon, or where there is more than any honest file has.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

MAX_BOXES = 65_536
# Items may share their data; a file that reads itself many times over is none.
MAX_READINGS = 3

AV1, GRID = b"av01", b"grid"
# What boxes with children have before the first of them.
CONTAINERS: Mapping[bytes, int] = {
    b"meta": 4,
    b"moov": 0,
    b"trak": 0,
    b"mdia": 0,
    b"minf": 0,
    b"stbl": 0,
}


class Box(NamedTuple):
    """A piece of the file; `start` to `end` is its content."""

    kind: bytes
    start: int
    end: int


class Numbers:
    """Big-endian numbers, one after another."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def read(self, size: int) -> int:
        """The number in the next `size` bytes; 0 of none."""
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise IndexError
        return int.from_bytes(self._data[start : self._at])


class Extent(NamedTuple):
    """Where a part of an item's data is: in the file, or in its box `idat`."""

    item: int
    in_idat: bool
    offset: int
    length: int  # 0: all that follows


def walk(data: bytes) -> Iterator[Box]:
    """Every box down to the tables, containers before their children."""
    waiting = [(0, len(data))]
    count = 0
    while waiting:
        for box in children(data, *waiting.pop()):
            count += 1
            if count > MAX_BOXES:
                raise IndexError
            yield box
            if box.kind in CONTAINERS:
                waiting.append((box.start + CONTAINERS[box.kind], box.end))


def children(data: bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes from `start` to `end`, in order."""
    while start + 8 <= end:
        size, head = int.from_bytes(data[start : start + 4]), 8
        kind = data[start + 4 : start + 8]
        if size == 1:  # the real one follows
            size, head = int.from_bytes(data[start + 8 : start + 16]), 16
        stop = start + size if size else end
        if size and size < head:
            raise IndexError
        yield Box(kind, start + head, min(stop, end))
        start = stop


def first_sample(data: bytes, table: Box) -> bytes:
    """The data of the first image of a track of AV1; nothing of other tracks."""
    inside = list(children(data, table.start, table.end))
    found = {box.kind: Numbers(data, box.start + 4) for box in reversed(inside)}
    kinds = [data[box.start : box.end] for box in inside if box.kind == b"stsd"]
    if not any(AV1 in kind for kind in kinds) or b"stsz" not in found:
        return b""
    size = found[b"stsz"].read(4)
    if found[b"stsz"].read(4) and not size:
        size = found[b"stsz"].read(4)
    for kind, width in ((b"stco", 4), (b"co64", 8)):
        if kind in found and found[kind].read(4):
            offset = found[kind].read(width)
            return data[offset : offset + size]
    return b""


def item_contents(data: bytes, meta: Box) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each item that is AV1 or a grid."""
    kinds: set[tuple[int, bytes]] = set()
    extents: dict[int, list[Extent]] = {}
    idat = Box(b"idat", 0, 0)
    for box in children(data, meta.start + CONTAINERS[b"meta"], meta.end):
        if box.kind == b"iinf":
            kinds.update(_item_kinds(data, box))
        elif box.kind == b"iloc":
            for extent in _extents(data, box):
                extents.setdefault(extent.item, []).append(extent)
        elif box.kind == b"idat":
            idat = box
    left = MAX_READINGS * len(data)
    for item, places in extents.items():
        for kind in (AV1, GRID):
            if (item, kind) in kinds:
                content = _joined(data, places, idat, most=left)
                left -= len(content)
                yield kind, content


def _joined(data: bytes, places: list[Extent], idat: Box, *, most: int) -> bytes:
    """The data of one item."""
    content = bytearray()
    for place in places:
        first, end = (idat.start, idat.end) if place.in_idat else (0, len(data))
        start = first + place.offset
        end = min(end, start + place.length) if place.length else end
        content += data[start:end]
        if len(content) > most:
            raise IndexError
    return bytes(content)


def _item_kinds(data: bytes, box: Box) -> Iterator[tuple[int, bytes]]:
    """Number and kind of each item that `iinf` lists."""
    count_size = 4 if data[box.start] else 2
    entries = children(data, box.start + 4 + count_size, box.end)
    for count, entry in enumerate(entries):
        if count > MAX_BOXES:
            raise IndexError
        id_size = 4 if data[entry.start] > 2 else 2  # noqa: PLR2004  version 3
        numbers = Numbers(data, entry.start + 4)
        item, _, kind = numbers.read(id_size), numbers.read(2), numbers.read(4)
        yield item, kind.to_bytes(4)


def _extents(data: bytes, box: Box) -> Iterator[Extent]:
    """The entries of `iloc`."""
    version, numbers = data[box.start], Numbers(data, box.start + 4)
    sizes = numbers.read(2)
    offset_size, length_size, base_size, index_size = (
        sizes >> shift & 15 for shift in (12, 8, 4, 0)
    )
    wide = 4 if version > 1 else 2
    count = 0
    for _ in range(numbers.read(wide)):
        item = numbers.read(wide)
        method = numbers.read(2) & 15 if version else 0
        numbers.read(2)  # which file: this one
        base = numbers.read(base_size)
        for _ in range(numbers.read(2)):
            count += 1
            if count > MAX_BOXES:
                raise IndexError
            if version:
                numbers.read(index_size)
            offset, length = numbers.read(offset_size), numbers.read(length_size)
            yield Extent(item, method == 1, base + offset, length)
