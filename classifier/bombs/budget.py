"""A file's **budget**: how many pieces of it, and how many bytes, are looked at.

One budget serves everything that reads the file: a bound of each loop alone is none,
where a file can have each loop run again for another of its parts.
"""

# Nor more than the file has bytes: there are pieces that take none, and a hundred bytes
# may declare any number of them.
MAX_PIECES = 65_536
# Parts may share their data; a file that reads itself many times over is none.
MAX_READINGS = 3


class Budget:
    """What may still be looked at of `data`. Raises IndexError where nothing is left.

    As a file does that ends too soon: what follows cannot be read, for either reason.
    """

    def __init__(self, data: bytes) -> None:
        self._pieces = min(MAX_PIECES, len(data))
        self._bytes = MAX_READINGS * len(data)

    def take_pieces(self, count: int = 1) -> None:
        """So many more steps of any loop: a box, an item, an extent, a unit …"""
        self._pieces -= count
        if self._pieces < 0:
            raise IndexError

    def take_bytes(self, count: int) -> None:
        """So many more bytes that are copied."""
        self._bytes -= count
        if self._bytes < 0:
            raise IndexError
