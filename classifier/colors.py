"""image of any mode → **RGB or gray**, 8 bits, without alpha.

Large images are converted strip by strip and reduced on the way, so that the memory of
a conversion does not multiply the memory of the image.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifier.errors import ImageDecodeError
from classifier.manifest import Color

STRIP_PIXELS = 1 << 20
UNBOUNDED_MODES = ("I", "F")  # 32-bit samples: no file says which value is white

# TIFF 6.0, section 8
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0

# How Pillow reads gray of a PNG that has fewer than 8 bits, and the highest sample.
SMALL_GRAY = {"L;2": 3, "L;4": 15}
DEEP_RGB = "RGB;16B"  # and 16 bits, of which it keeps the upper 8

Levels = npt.NDArray[np.uint8]  # [65536]: 16-bit sample → 0..255


@dataclass(frozen=True, slots=True)
class Flattener:
    """Color mode and background that a bundle asks for."""

    color: Color
    background: tuple[int, int, int]

    @property
    def mode(self) -> str:
        """Pillow's name of the result's mode."""
        return "RGB" if self.color == "rgb" else "L"

    def flatten(
        self, image: Image.Image, short_side: int
    ) -> tuple[Image.Image, tuple[str, ...]]:
        """Return the image in `mode` and what the sender should know of it.

        Args:
            image: loaded, of any mode.
            short_side: the scale that will be needed; the result has at least twice
                that where the image has.

        Raises:
            ImageDecodeError: samples of 32 bits.
        """
        warned = self._warnings(image)
        levels = levels_of(image)
        factor = max(1, min(image.size) // (2 * short_side))
        if factor == 1 and image.size[0] * image.size[1] <= STRIP_PIXELS:
            return self._convert(image, levels), warned
        if factor == 1 and self._is_flat(image):
            return image, warned
        return self._convert_in_strips(image, factor, levels), warned

    def _is_flat(self, image: Image.Image) -> bool:
        return image.mode == self.mode and "transparency" not in image.info

    def _convert_in_strips(
        self, image: Image.Image, factor: int, levels: Levels
    ) -> Image.Image:
        width, height = image.size
        rows = max(1, STRIP_PIXELS // (width * factor)) * factor
        flat = Image.new(self.mode, (-(-width // factor), -(-height // factor)))
        for top in range(0, height, rows):
            strip = image.crop((0, top, width, min(top + rows, height)))
            flat.paste(self._convert(strip, levels).reduce(factor), (0, top // factor))
        return flat

    def _convert(self, image: Image.Image, levels: Levels) -> Image.Image:
        if self._is_flat(image):
            return image
        if image.mode in UNBOUNDED_MODES:
            raise ImageDecodeError(
                f"the image has 32-bit samples (mode {image.mode}), whose range is not "
                "defined; send 8 or 16 bits a sample"
            )
        if image.mode.startswith("I;16"):
            return self._convert_16_bits(image, levels)
        if image.has_transparency_data:
            return self._composite(image.convert("RGBA"))
        if image.mode == "LAB":
            image = image.convert("RGB")  # Pillow knows no other way from there
        return image.convert(self.mode)

    def _convert_16_bits(self, image: Image.Image, levels: Levels) -> Image.Image:
        samples = np.asarray(image)  # uint16 [H, W]
        gray = Image.fromarray(levels[samples])
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            opaque = np.where(samples == transparent, 0, 255).astype(np.uint8)
            gray.putalpha(Image.fromarray(opaque))
            return self._composite(gray.convert("RGBA"))
        return gray.convert(self.mode)

    def _composite(self, image: Image.Image) -> Image.Image:
        below = Image.new("RGBA", image.size, (*self.background, 255))
        return Image.alpha_composite(below, image).convert(self.mode)

    def _warnings(self, image: Image.Image) -> tuple[str, ...]:
        warned = []
        if image.has_transparency_data:
            warned.append(
                "the image has transparency; it was put on the background "
                f"{self.background}"
            )
        if self.color == "rgb" and image.mode in {"1", "L", "LA", "I;16", "I;16B"}:
            warned.append("the image is grayscale; this model reads color")
        return tuple(warned)


def scale_transparency(image: Image.Image) -> None:
    """Give the transparent color of a PNG the scale that its pixels will have.

    Pillow scales the pixels alone, while it loads them: call this before that.
    """
    color = image.info.get("transparency")
    if image.format != "PNG" or color is None:
        return
    for tile in getattr(image, "tile", ())[:1]:
        if tile.args in SMALL_GRAY:
            highest = SMALL_GRAY[tile.args]
            image.info["transparency"] = (color & highest) * (255 // highest)
        elif tile.args == DEEP_RGB:
            image.info["transparency"] = tuple(sample >> 8 for sample in color)


@cache
def _levels(bits: int, *, white_is_zero: bool) -> Levels:
    levels: Levels = np.minimum(np.arange(65536) >> (bits - 8), 255).astype(np.uint8)
    return ~levels if white_is_zero else levels


def levels_of(image: Image.Image) -> Levels:
    """The level of each 16-bit sample, uint8 [65536].

    Pillow's own conversion clips at 255, and leaves it to us that a TIFF may have 12
    bits a sample, or white at zero.
    """
    tags = getattr(image, "tag_v2", {})
    bits = 12 if tags.get(BITS_PER_SAMPLE) == (12,) else 16
    return _levels(bits, white_is_zero=tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)
