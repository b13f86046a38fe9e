"""image + box → **the image scaled**: as Pillow does it, in a third of the time.

Pillow's wheels scale in plain C. The kernels of fast_image_resize compute the same
convolution, also with 8 bits between its two passes, in SSE4.1, AVX2 or NEON: results
of bilinear differ by at most one level of 255; bicubic and lanczos, which overshoot at
edges, by more in single pixels. Linux on ARM has no wheel of them; there, and for what
they do otherwise, Pillow scales.
"""

from functools import cache

import numpy as np
import PIL
from PIL import Image

from classifier.manifest import Interpolation

try:
    import cykooz_resizer as kernels
except ImportError:  # no wheel for this machine
    kernels = None

Box = tuple[float, float, float, float]  # left, top, right, bottom
Size = tuple[int, int]  # width, height

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Their box filter rounds its support otherwise, and nearest is quick already.
KERNELS = {"bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}

# A cheap whole-number reduction comes first, but only down to twice the target, which
# leaves the result within 0.3 of 255 on average.
REDUCING_GAP = 2.0

# The kernels drop weights of 0 at the ends of a pixel's window, and believe that the
# windows of the outermost pixels reach farthest. For bicubic, whose weights are 0 one
# pixel away, that is wrong where an image does not get smaller, and they would read
# beyond a buffer. Where it does, another weight lies between.
LEAST_SHRINKING = 1.05

# The kernels read Pillow's images where they lie, by a layout that may change with its
# next major version.
LAYOUT = "13."


def resample(
    image: Image.Image,
    size: Size,
    interpolation: Interpolation,
    *,
    box: Box | None = None,
) -> Image.Image:
    """The part of an image that is in `box`, in another size.

    Args:
        image: loaded, of mode RGB or L.
        size: of the result.
        interpolation: with the antialiasing of Pillow where the image gets smaller.
        box: within the image, in fractions of pixels; all of it by default.
    """
    box = box or (0, 0, *image.size)
    has_kernel = interpolation in KERNELS and why_pillow_scales() is None
    if has_kernel and _shrinks_a_little(box, size):
        return _by_kernels(image, size, interpolation, box)
    return image.resize(size, PILLOW[interpolation], box=box, reducing_gap=REDUCING_GAP)


def _shrinks_a_little(box: Box, size: Size) -> bool:
    """Whether both sides get smaller, and Pillow takes no means of blocks first."""
    across, down = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    return min(across, down) >= LEAST_SHRINKING and max(across, down) < 2 * REDUCING_GAP


def _by_kernels(
    image: Image.Image, size: Size, interpolation: Interpolation, box: Box
) -> Image.Image:
    left, top, right, bottom = box
    # Rounding must not carry the far edges beyond those of the image.
    width = min(right - left, image.width - left)
    height = min(bottom - top, image.height - top)
    scaled = Image.new(image.mode, size)
    options = kernels.ResizeOptions(
        kernels.ResizeAlg.convolution(kernels.FilterType[KERNELS[interpolation]]),
        crop_box=kernels.CropBox(left, top, width, height),
    )
    # A new one each time: it keeps what one image needed, and one thread has it.
    kernels.Resizer().resize_pil(image, scaled, options)
    return scaled


@cache
def why_pillow_scales() -> str | None:
    """Why the kernels are not used; None if they are. Tried once in a process."""
    if kernels is None:
        return "cykooz-resizer is not installed, or has no wheel for this machine"
    if not PIL.__version__.startswith(LAYOUT):
        return f"the kernels were tried with Pillow {LAYOUT}x, not {PIL.__version__}"
    levels = np.random.default_rng(0).integers(256, size=(37, 41, 3), dtype=np.uint8)
    box = (2.5, 1.25, 39.5, 36.0)
    for mode in ("RGB", "L"):
        image = Image.fromarray(levels).convert(mode)
        found = _by_kernels(image, (17, 13), "bilinear", box)
        expected = image.resize((17, 13), PILLOW["bilinear"], box=box)
        difference = np.asarray(found, np.int16) - np.asarray(expected)
        if np.abs(difference).max() > 1:
            return f"the kernels scale {mode} otherwise than Pillow {PIL.__version__}"
    return None
