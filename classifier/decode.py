"""bytes → **image**: bounded, allow-listed, upright, in RGB or gray, never alpha.

The declared size is checked before a pixel is decoded. Formats outside the allow-list
are not even tried: nearly every hole in image libraries was in a rare format, and some
of those formats are programs. Every failure is one of four typed errors.
"""

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

from PIL import ExifTags, Image, UnidentifiedImageError

from classifier.bombs import check_bytes, check_opened
from classifier.colors import Flattener, scale_transparency
from classifier.errors import (
    EmptyImageError,
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
)
from classifier.manifest import Color
from classifier.silence import silence
from classifier.small_png import read_small_png

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
PLUGINS = ("Jpeg", "Mpo", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif")  # of Pillow

# First bytes: what has them and cannot be read is damaged, not of another format.
SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM",
    "TIFF": rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+",
    "AVIF": rb"....ftypavi[fs]",
}

UPRIGHT = {  # EXIF 2.32, tag Orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPS_SIDES = (5, 6, 7, 8)

ANIMATED = "the image is animated; its first frame was used"
COUNTS_FRAMES = frozenset(("PNG", "WEBP", "AVIF"))  # in their headers

# Pillow parses EXIF whole, in Python, at 0.3 s a megabyte. 64 KiB are usual.
MAX_EXIF_BYTES = 2**20
EXIF_PLACES = ("exif", "Raw profile type exif")  # of an image's `info`

# Twice PIL.Image.MAX_IMAGE_PIXELS: above it Pillow refuses on its own.
PILLOW_CEILING = 178_956_970


# Memory at worst, beside the file: 9 for most formats, AVIF 12, WebP 17.
MAX_BYTES_A_PIXEL = 17


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds on what a file may declare; `MAX_BYTES_A_PIXEL` says what that costs."""

    max_pixels: int = 50_000_000  # the 48 and 50 megapixel phones fit
    max_side: int = 65_535  # Pillow's resampling tables grow with the side

    def __post_init__(self) -> None:
        if not 1 <= self.max_pixels <= PILLOW_CEILING:
            raise ValueError(
                f"max_pixels is {self.max_pixels}; allowed are 1 to {PILLOW_CEILING}"
            )
        if self.max_side < 1:
            raise ValueError(f"max_side is {self.max_side}; at least 1 is needed")


DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What was sent: size in pixels, upright, and the file's format."""

    width: int
    height: int
    format: str


class DecodedImage(NamedTuple):
    """An upright image in mode RGB or L, perhaps smaller than what was sent."""

    image: Image.Image
    info: ImageInfo
    warnings: tuple[str, ...]


def decode(
    data: bytes,
    *,
    color: Color,
    background: tuple[int, int, int],
    short_side: int,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> DecodedImage:
    """Decode the first frame of one image file.

    Args:
        data: the file's bytes.
        color: mode of the result, "rgb" or "gray".
        background: RGB that shows through transparent parts.
        short_side: the scale that will be needed. Large images are decoded at no less
            than twice that: cheap for JPEG, and measured to leave accuracy unchanged.
        limits: bounds on the declared size.

    Raises:
        EmptyImageError: there are no bytes.
        ImageFormatError: not an image, or not of a format in `FORMATS`.
        ImageTooLargeError: it declares more pixels than the limits allow.
        ImageDecodeError: damaged, cut off, or of samples without a defined range.
    """
    if not data:
        raise EmptyImageError("the image is empty (0 bytes)")
    silence()
    flattener = Flattener(color, background)
    with _translated(data, limits):
        small = read_small_png(data)
        if small is not None:
            _check_size(small, limits)
            flat, warned = flattener.flatten(small, short_side)
            return DecodedImage(flat, ImageInfo(*small.size, "PNG"), warned)
        check_bytes(data)
        image = Image.open(BytesIO(data), formats=FORMATS)
        _check_size(image, limits)
        check_opened(image, data, max_pixels=limits.max_pixels)
        sent = None
        if image.format in {"JPEG", "MPO"}:
            sent = image.size
            image.draft("RGB", (2 * short_side, 2 * short_side))
        decoded = _flat_and_upright(image, flattener, short_side, sent=sent)
    if _is_animated(image):
        decoded = decoded._replace(warnings=(*decoded.warnings, ANIMATED))
    return decoded


def decode_opened(
    image: Image.Image,
    flattener: Flattener,
    *,
    short_side: int,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> DecodedImage:
    """The same for an image that a program has opened with Pillow, of any format.

    Raises:
        ImageTooLargeError: it declares more pixels than the limits allow.
        ImageDecodeError: it has no pixels, or they cannot be read.
    """
    silence()
    with _translated(b"", limits):
        _check_size(image, limits)
        check_opened(image, b"", max_pixels=limits.max_pixels)
        return _flat_and_upright(image, flattener, short_side)


def _flat_and_upright(
    image: Image.Image,
    flattener: Flattener,
    short_side: int,
    *,
    sent: tuple[int, int] | None = None,
) -> DecodedImage:
    """`sent` is the size before a draft made it smaller."""
    scale_transparency(image)
    image.load()
    size = sent or image.size  # loading turns a TIFF, if need be by its XMP
    flat, warned = flattener.flatten(image, short_side)
    orientation = _orientation(image)
    if orientation in UPRIGHT:
        flat = flat.transpose(UPRIGHT[orientation])
    width, height = reversed(size) if orientation in SWAPS_SIDES else size
    file_format = "JPEG" if image.format == "MPO" else image.format or image.mode
    return DecodedImage(flat, ImageInfo(width, height, file_format), warned)


def _is_animated(image: Image.Image) -> bool:
    """As far as it can be told without walking through all frames."""
    if image.format == "GIF":
        return "loop" in image.info
    return image.format in COUNTS_FRAMES and bool(getattr(image, "is_animated", False))


def _check_size(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageDecodeError(f"the image has no pixels: it is {width}x{height}")
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"the image declares {width}x{height} pixels; "
            f"at most {limits.max_pixels} pixels are accepted"
        )
    if max(width, height) > limits.max_side:
        raise ImageTooLargeError(
            f"the image declares {width}x{height} pixels; "
            f"at most {limits.max_side} a side are accepted"
        )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; damaged metadata must not sink a good picture."""
    if image.format in {"GIF", "BMP"}:
        return 1
    if any(len(image.info.get(key, b"")) > MAX_EXIF_BYTES for key in EXIF_PLACES):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # parsers of foreign metadata raise nearly anything
        return 1


@contextmanager
def _translated(data: bytes, limits: DecodeLimits) -> Iterator[None]:
    """Pillow's errors → ours. A border, so anything is caught: a damaged file makes
    its parsers raise ValueError, SyntaxError, struct.error, TypeError, IndexError …
    """
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(
            f"the image declares more than {PILLOW_CEILING} pixels; "
            f"at most {limits.max_pixels} pixels are accepted"
        ) from error
    except UnidentifiedImageError as error:
        for name, signature in SIGNATURES.items():
            if re.match(signature, data, re.DOTALL):
                raise ImageDecodeError(f"the {name} is damaged: no header") from error
        raise ImageFormatError(
            f"not an image of an accepted format; accepted are {', '.join(FORMATS)}"
        ) from error
    except MemoryError as error:
        raise ImageTooLargeError("the image needs more memory than there is") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ImageDecodeError(f"the image cannot be decoded: {reason}") from error


def warm_up() -> None:
    """Import every decoder now; the first image of each format would wait for it."""
    for plugin in PLUGINS:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    silence()
