"""bytes → **pixels**: decode, scale, crop or pad. The only preprocessing there is.

Training, evaluation and serving all call this module, so train/serve skew has nowhere
to live. Normalization is not here: it is the first node of the graph.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifier.colors import Flattener
from classifier.decode import (
    DEFAULT_LIMITS,
    DecodedImage,
    DecodeLimits,
    ImageInfo,
    decode,
    decode_opened,
)
from classifier.manifest import PreprocessSpec
from classifier.resample import Box, resample

Pixels = npt.NDArray[np.uint8]  # [H, W, C]


class Preprocessed(NamedTuple):
    """One image ready for a batch, and what its sender should know of it."""

    pixels: Pixels  # uint8 [H, W, C]
    image: ImageInfo
    warnings: tuple[str, ...]


def preprocess(
    data: bytes, spec: PreprocessSpec, *, limits: DecodeLimits = DEFAULT_LIMITS
) -> Preprocessed:
    """Turn one image file into pixels, uint8 [H, W, C].

    Raises:
        ImageError: a subclass says what is wrong with the bytes; see `decode`.
    """
    decoded = decode(
        data,
        color=spec.color,
        background=spec.background,
        short_side=_scale_needed(spec),
        limits=limits,
    )
    return _fitted(decoded, spec)


def preprocess_image(
    image: Image.Image, spec: PreprocessSpec, *, limits: DecodeLimits = DEFAULT_LIMITS
) -> Preprocessed:
    """Turn an image that was opened with Pillow into pixels, uint8 [H, W, C].

    Raises:
        ImageError: it is over the limits, or its file cannot be read to the end.
    """
    flattener = Flattener(spec.color, spec.background)
    short_side = _scale_needed(spec)
    decoded = decode_opened(image, flattener, short_side=short_side, limits=limits)
    return _fitted(decoded, spec)


def _fitted(decoded: DecodedImage, spec: PreprocessSpec) -> Preprocessed:
    info, warned = decoded.info, decoded.warnings
    if info.width < spec.width and info.height < spec.height:
        warned = (
            *warned,
            f"the image is {info.width}x{info.height}, smaller than the "
            f"{spec.width}x{spec.height} that this model reads",
        )
    return Preprocessed(fit(decoded.image, spec), info, warned)


def fit(image: Image.Image, spec: PreprocessSpec) -> Pixels:
    """Scale and cut an image of the spec's mode to uint8 [H, W, C]."""
    target = (spec.width, spec.height)
    if spec.resize == "pad":
        fitted = _pad(image, spec)
    elif spec.resize == "crop":
        box = center_box(image.size, spec)
        fitted = resample(image, target, spec.interpolation, box=box)
    elif image.size == target:
        fitted = image
    else:
        fitted = resample(image, target, spec.interpolation)
    # Of a small image, `np.asarray` would take half as long again.
    return np.frombuffer(fitted.tobytes(), np.uint8).reshape(spec.shape)


def center_box(size: tuple[int, int], spec: PreprocessSpec) -> Box:
    """The part of the image that ends up in H x W once its short side is `short_side`.

    Fractions of a pixel are kept, so that the crop is symmetric at any size and one
    resampling does what scaling and cropping would do in two.
    """
    width, height = size
    scale = min(size) / (spec.short_side or min(spec.height, spec.width))
    half_width, half_height = spec.width * scale / 2, spec.height * scale / 2
    return (
        max(0.0, width / 2 - half_width),
        max(0.0, height / 2 - half_height),
        min(float(width), width / 2 + half_width),
        min(float(height), height / 2 + half_height),
    )


def pad_placement(
    size: tuple[int, int], spec: PreprocessSpec
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of the image on the H x W canvas of "pad", and its left top corner."""
    width, height = size
    scale = min(spec.width / width, spec.height / height)
    scaled = max(1, round(width * scale)), max(1, round(height * scale))
    return scaled, ((spec.width - scaled[0]) // 2, (spec.height - scaled[1]) // 2)


def _scale_needed(spec: PreprocessSpec) -> int:
    """The short side at which the image will be used, in pixels."""
    return spec.short_side or max(spec.height, spec.width)


def _pad(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    size, offset = pad_placement(image.size, spec)
    canvas = Image.new("RGB", (spec.width, spec.height), spec.background)
    canvas = canvas.convert(image.mode)
    canvas.paste(resample(image, size, spec.interpolation), offset)
    return canvas
