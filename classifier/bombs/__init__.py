"""bytes → **refusal**: small files that would cost hours or gigabytes to decode.

The pixels that a file declares are one way to ask for much (`decode` checks them);
here are those that need a look into one format. Most are loops of Pillow's, in Python,
over pieces that a hostile file makes tiny and many: they cost up to 4 seconds a
megabyte, and some grow with its square. Each check reads the bytes only, walks as
Pillow walks, and ends at its own bound.
"""

import re
from collections.abc import Callable, Mapping

from PIL import Image

from classifier.bombs.avif import check_avif_exif, check_avif_frames
from classifier.bombs.bmp import check_bmp_runs
from classifier.bombs.gif import check_gif_pieces
from classifier.bombs.jpeg import check_jpeg_header, check_jpeg_scans
from classifier.bombs.png import check_png_chunks
from classifier.bombs.tiff import (
    check_tiff_directory,
    check_tiff_scans,
    check_tiff_tiles,
)

# By the first two bytes, which is all that tells these formats apart.
HEADER_CHECKS: Mapping[bytes, Callable[[bytes], None]] = {
    b"\xff\xd8": check_jpeg_header,
    b"\x89P": check_png_chunks,
    b"GI": check_gif_pieces,
    b"II": check_tiff_directory,
    b"MM": check_tiff_directory,
}
AVIF = re.compile(rb".{4}ftyp(avi[fs]|m[is]f1)", re.DOTALL)  # as Pillow tells it


def check_bytes(data: bytes) -> None:
    """Refuse a file that is dear to open. Raises ImageDecodeError."""
    check = HEADER_CHECKS.get(data[:2])
    if check is not None:
        check(data)
    elif AVIF.match(data):
        check_avif_exif(data)


def check_opened(image: Image.Image, data: bytes, *, max_pixels: int) -> None:
    """Refuse an image that is dear to load; `data` are the file's bytes, if known.

    Raises:
        ImageDecodeError, ImageTooLargeError
    """
    match image.format:
        case "JPEG" | "MPO":
            check_jpeg_scans(data, pixels=image.width * image.height)
        case "AVIF":
            check_avif_frames(data, max_pixels=max_pixels)
        case "BMP":
            check_bmp_runs(image)
        case "TIFF":
            tags = getattr(image, "tag_v2", {})
            pixels = check_tiff_tiles(tags, max_pixels)
            check_tiff_scans(tags, data, max(pixels, image.width * image.height))


__all__ = ["check_bytes", "check_opened"]
