"""AV1 data → **frame sizes**: the frames among its units (OBUs), by sequence headers.

AV1 Bitstream & Decoding Process Specification, sections 5.3, 5.5 and 4.10.
"""

from collections.abc import Iterator

from classifier.bombs.budget import Budget

SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6
# Up to its frame sizes no header has more: 32 operating points of 89 bits, and 200.
HEADER_BYTES = 512
MAX_ZEROS = 31  # of a number of variable length; what has more stands for no number


class Bits:
    """Bits from the left. Raises IndexError where the data ends."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data), 8 * len(data)

    def read(self, count: int) -> int:
        """An unsigned number, f(n) in the specification."""
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._bits >> self._left & (1 << count) - 1

    def skip_uvlc(self) -> None:
        """A number of variable length: n zeros, a one, n more bits."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > MAX_ZEROS:
                raise IndexError
        self.read(zeros)


def frame_sizes(data: bytes, budget: Budget) -> Iterator[tuple[int, int]]:
    """Width and height of each frame, shown or not: the largest that the sequence
    header before it allows. One that no frame follows counts as if one did.

    Raises:
        IndexError: the data ends inside a header, or the budget does.
    """
    at = 0
    size_told: tuple[int, int] | None = None
    is_counted = False  # the next frame, with its sequence header
    while at < len(data):
        budget.take_pieces()
        head = data[at]
        at += 2 if head & 0b100 else 1  # an extension
        size = len(data) - at
        if head & 0b10:
            size, at = _leb128(data, at)
        kind = head >> 3 & 0b1111
        if kind == SEQUENCE_HEADER:
            header = Bits(data[at : at + min(size, HEADER_BYTES)])
            size_told, is_counted = _size_in(header, budget), True
            yield size_told
        elif kind in (FRAME_HEADER, FRAME) and size_told is not None:
            if not is_counted:
                yield size_told
            is_counted = False
        at += size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number in up to 8 bytes of 7 bits, and where it ends."""
    value = 0
    for i in range(8):
        value |= (data[at + i] & 0x7F) << 7 * i
        if not data[at + i] & 0x80:
            break
    return value, at + i + 1


def _size_in(header: Bits, budget: Budget) -> tuple[int, int]:
    header.read(4)  # profile, still picture
    reduced = header.read(1)
    if reduced:
        header.read(5)  # level
    else:
        _skip_operating_points(header, budget)
    width_bits, height_bits = header.read(4) + 1, header.read(4) + 1
    if reduced:
        return header.read(width_bits) + 1, header.read(height_bits) + 1
    # each frame may give a size of its own, of as many bits
    return 1 << width_bits, 1 << height_bits


def _skip_operating_points(header: Bits, budget: Budget) -> None:
    delay_bits = 0
    if header.read(1):  # timing
        header.read(64)
        if header.read(1):
            header.skip_uvlc()
        if header.read(1):  # decoder model
            delay_bits = header.read(5) + 1
            header.read(42)
    has_delay = header.read(1)
    for _ in range(header.read(5) + 1):
        budget.take_pieces()
        header.read(12)
        if header.read(5) > 7:  # noqa: PLR2004  levels that have a tier
            header.read(1)
        if delay_bits and header.read(1):
            header.read(2 * delay_bits + 1)
        if has_delay and header.read(1):
            header.read(4)
