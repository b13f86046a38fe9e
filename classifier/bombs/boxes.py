"""ISO base media file → **boxes**, and the data of the images in them.

ISO/IEC 14496-12, sections 4.2, 8.7 and 8.11. Everything raises IndexError where the
data end too soon, or the file's budget does.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from classifier.bombs.budget import Budget

AV1, GRID, EXIF = b"av01", b"grid", b"Exif"
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


def walk(data: bytes, budget: Budget) -> Iterator[Box]:
    """Every box down to the tables, containers before their children."""
    waiting = [(0, len(data))]
    while waiting:
        for box in children(data, *waiting.pop(), budget):
            yield box
            if box.kind in CONTAINERS:
                waiting.append((box.start + CONTAINERS[box.kind], box.end))


def children(data: bytes, start: int, end: int, budget: Budget) -> Iterator[Box]:
    """The boxes from `start` to `end`, in order."""
    while start + 8 <= end:
        budget.take_pieces()
        size, head = int.from_bytes(data[start : start + 4]), 8
        kind = data[start + 4 : start + 8]
        if size == 1:  # the real one follows
            size, head = int.from_bytes(data[start + 8 : start + 16]), 16
        stop = start + size if size else end
        if size and size < head:
            raise IndexError
        yield Box(kind, start + head, min(stop, end))
        start = stop


def first_sample(data: bytes, table: Box, budget: Budget) -> bytes:
    """The data of the first image of a track of AV1; nothing of other tracks."""
    found: dict[bytes, Numbers] = {}
    is_av1 = False
    for box in children(data, table.start, table.end, budget):
        found.setdefault(box.kind, Numbers(data, box.start + 4))
        if box.kind == b"stsd":
            is_av1 = is_av1 or data.find(AV1, box.start, box.end) >= 0
    if not is_av1 or b"stsz" not in found:
        return b""
    size = found[b"stsz"].read(4)
    if found[b"stsz"].read(4) and not size:
        size = found[b"stsz"].read(4)
    for kind, width in ((b"stco", 4), (b"co64", 8)):
        if kind in found and found[kind].read(4):
            offset = found[kind].read(width)
            sample = data[offset : offset + size]
            budget.take_bytes(len(sample))
            return sample
    return b""


def item_contents(
    data: bytes, meta: Box, budget: Budget, *, of: Collection[bytes]
) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each item of these kinds."""
    kinds: set[tuple[int, bytes]] = set()
    extents: dict[int, list[Extent]] = {}
    idat = Box(b"idat", 0, 0)
    for box in children(data, meta.start + CONTAINERS[b"meta"], meta.end, budget):
        if box.kind == b"iinf":
            kinds.update(_item_kinds(data, box, budget))
        elif box.kind == b"iloc":
            for extent in _extents(data, box, budget):
                extents.setdefault(extent.item, []).append(extent)
        elif box.kind == b"idat":
            idat = box
    for item, places in extents.items():
        for kind in of:
            if (item, kind) in kinds:
                yield kind, _joined(data, places, idat, budget)


def _joined(data: bytes, places: list[Extent], idat: Box, budget: Budget) -> bytes:
    """The data of one item."""
    content = bytearray()
    for place in places:
        first, end = (idat.start, idat.end) if place.in_idat else (0, len(data))
        start = first + place.offset
        end = min(end, start + place.length) if place.length else end
        budget.take_bytes(max(0, end - start))
        content += data[start:end]
    return bytes(content)


def _item_kinds(data: bytes, box: Box, budget: Budget) -> Iterator[tuple[int, bytes]]:
    """Number and kind of each item that `iinf` lists."""
    count_size = 4 if data[box.start] else 2
    for entry in children(data, box.start + 4 + count_size, box.end, budget):
        id_size = 4 if data[entry.start] > 2 else 2  # noqa: PLR2004  version 3
        numbers = Numbers(data, entry.start + 4)
        item, _, kind = numbers.read(id_size), numbers.read(2), numbers.read(4)
        yield item, kind.to_bytes(4)


def _extents(data: bytes, box: Box, budget: Budget) -> Iterator[Extent]:
    """The entries of `iloc`."""
    version, numbers = data[box.start], Numbers(data, box.start + 4)
    sizes = numbers.read(2)
    offset_size, length_size, base_size, index_size = (
        sizes >> shift & 15 for shift in (12, 8, 4, 0)
    )
    wide = 4 if version > 1 else 2
    for _ in range(numbers.read(wide)):
        budget.take_pieces()
        item = numbers.read(wide)
        method = numbers.read(2) & 15 if version else 0
        numbers.read(2)  # which file: this one
        base = numbers.read(base_size)
        for _ in range(numbers.read(2)):
            budget.take_pieces()
            if version:
                numbers.read(index_size)
            offset, length = numbers.read(offset_size), numbers.read(length_size)
            yield Extent(item, method == 1, base + offset, length)
