"""BMP: run lengths, which Pillow unpacks in Python."""

from PIL import Image

from classifier.errors import ImageTooLargeError

# 0.12 µs a pixel, where a line ends early: ten kilobytes took 6 s.
MAX_RUN_PIXELS = 4_000_000


def check_bmp_runs(image: Image.Image) -> None:
    """Refuse a large BMP of run lengths. Raises ImageTooLargeError."""
    tiles = getattr(image, "tile", ())  # an image that was never a file has none
    packed = any(tile.codec_name == "bmp_rle" for tile in tiles)
    if packed and image.width * image.height > MAX_RUN_PIXELS:
        raise ImageTooLargeError(
            f"the image declares {image.width}x{image.height} pixels; of a BMP with "
            f"run lengths at most {MAX_RUN_PIXELS} pixels are accepted"
        )
