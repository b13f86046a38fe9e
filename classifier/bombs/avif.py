"""AVIF: frames that are larger than the file says, and EXIF that is written anew.

Pillow takes an image's size from a box (`ispe`) that libavif does not hold the frame
to: it decodes what the AV1 data say, and scales that. A file of 3 KB that declared
64x64 took 970 MB. Nor does it hold an image to one frame: all that are not shown are
decoded before the first that is, a tenth of a second and 400 bytes each. So the data of
every item are looked up, and their headers read.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from classifier.bombs.av1 import frame_sizes
from classifier.bombs.boxes import AV1, EXIF, GRID, first_sample, item_contents, walk
from classifier.bombs.budget import Budget
from classifier.bombs.tiff import check_exif
from classifier.errors import ImageDecodeError, ImageTooLargeError

# Color, alpha, and as much again for thumbnails or a gain map.
MAX_SUM = 3
# What an item has before its EXIF: four bytes, and a name that Pillow drops.
EXIF_HEAD = re.compile(rb"^.{4}(Exif\0\0){0,2}", re.DOTALL)


def check_avif_frames(data: bytes, *, max_pixels: int) -> None:
    """Refuse grids, and frames of one item together, of more than `max_pixels`.

    Raises:
        ImageDecodeError: a box is cut off, or there are too many.
        ImageTooLargeError
    """
    total = 0
    with _damaged():
        for sizes in _sizes(data):
            pixels = 0
            for width, height in sizes:
                pixels += width * height
                if pixels > max_pixels or total + pixels > MAX_SUM * max_pixels:
                    raise ImageTooLargeError(
                        f"the image has frames of up to {width}x{height} pixels; "
                        f"at most {max_pixels} pixels are accepted"
                    )
            total += pixels


def check_avif_exif(data: bytes) -> None:
    """Refuse EXIF of too many numbers.

    Where the file turns the image otherwise than its EXIF does, Pillow writes the EXIF
    anew, number by number, before anything else can be asked: 3 s a megabyte.

    Raises:
        ImageDecodeError: so many, or a box is cut off, or there are too many.
    """
    budget = Budget(data)
    with _damaged():
        for box in walk(data, budget):
            if box.kind == b"meta":
                for _, content in item_contents(data, box, budget, of=(EXIF,)):
                    check_exif(EXIF_HEAD.sub(b"", content), budget)


@contextmanager
def _damaged() -> Iterator[None]:
    try:
        yield
    except IndexError as error:
        raise ImageDecodeError("the AVIF is damaged: its boxes are broken") from error


def _sizes(data: bytes) -> Iterator[Iterator[tuple[int, int]]]:
    """Width and height of the frames of each item, and of grids."""
    budget = Budget(data)
    for box in walk(data, budget):
        if box.kind == b"stbl":
            yield frame_sizes(first_sample(data, box, budget), budget)
        elif box.kind == b"meta":
            for kind, content in item_contents(data, box, budget, of=(AV1, GRID)):
                if kind == AV1:
                    yield frame_sizes(content, budget)
                else:
                    yield _grid(content)


def _grid(content: bytes) -> Iterator[tuple[int, int]]:
    """The size of the image that the cells of a grid make (MIAF, 6.6.2.3)."""
    size = 4 if content[1] & 1 else 2
    width, height = content[4 : 4 + size], content[4 + size : 4 + 2 * size]
    yield int.from_bytes(width), int.from_bytes(height)
