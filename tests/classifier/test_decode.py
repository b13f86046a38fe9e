"""bytes → image: every format upright and first frame only; every failure typed."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from classifier.decode import ANIMATED, DecodedImage, DecodeLimits, decode
from classifier.errors import (
    EmptyImageError,
    ImageDecodeError,
    ImageFormatError,
    ImageTooLargeError,
)
from tests.classifier.files import FORMATS, encode, oriented, picture

BACKGROUND = (255, 255, 255)
EXIF_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


def decoded(data: bytes, **changes: object) -> DecodedImage:
    """Decode as a model of 224 pixels would ask for it."""
    asked = {"color": "rgb", "background": BACKGROUND, "short_side": 224}
    return decode(data, **(asked | changes))


def difference(image: Image.Image, expected: np.ndarray) -> float:
    """Mean absolute difference in levels of 255."""
    found = np.asarray(image).astype(float)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).mean())


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_gives_the_picture(fmt):
    """Lossless ones to a palette's or a rounding's accuracy, lossy ones nearly."""
    result = decoded(encode(picture(), fmt))

    assert (result.info.width, result.info.height, result.info.format) == (48, 32, fmt)
    assert difference(result.image, picture()) < 8
    assert result.warnings == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", EXIF_FORMATS)
def test_the_picture_stands_upright(fmt, orientation):
    """A phone stores what its sensor saw and notes how it was held."""
    result = decoded(oriented(fmt, orientation))

    assert (result.info.width, result.info.height) == (48, 32)
    assert difference(result.image, picture()) < 8


@pytest.mark.parametrize("exif", [None, 1, 6])
def test_a_tiff_that_its_xmp_turns_tells_the_size_of_the_turned_image(exif):
    """Pillow follows XMP where the directory says nothing of it."""
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd[700] = b'<rdf:Description tiff:Orientation="6"/>'
    ifd.tagtype[700] = 1
    if exif is not None:
        ifd[274] = exif

    result = decoded(encode(picture(), "TIFF", tiffinfo=ifd))

    upright = (48, 32) if exif == 1 else (32, 48)
    assert result.image.size == upright
    assert (result.info.width, result.info.height) == upright


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    """Metadata trouble must not sink a good picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation

    result = decoded(encode(picture(), "PNG", exif=exif))

    assert difference(result.image, picture()) == 0


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_only_the_first_frame_counts(fmt):
    """Of an animation or a document of several pages."""
    first = Image.new("RGB", (16, 16), (255, 0, 0))
    others = [Image.new("RGB", (16, 16), (0, 0, 255))] * 3

    result = decoded(encode(first, fmt, save_all=True, append_images=others))

    red, _, blue = np.asarray(result.image).reshape(-1, 3).mean(axis=0)
    assert (red > 245, blue < 10) == (True, True)


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "AVIF"])
def test_the_sender_of_an_animation_is_told(fmt):
    """What counts may be in a later frame. A still image says nothing."""
    first = Image.fromarray(picture())
    second = Image.fromarray(255 - picture())
    moving = encode(first, fmt, save_all=True, append_images=[second], loop=0)

    assert decoded(moving).warnings == (ANIMATED,)
    assert decoded(encode(first, fmt)).warnings == ()


def test_a_multi_picture_jpeg_is_its_first_picture():
    """Cameras append a preview or the other eye; the format is told as JPEG."""
    second = Image.fromarray(255 - picture())
    data = encode(picture(), "MPO", save_all=True, append_images=[second], quality=95)

    result = decoded(data)

    assert result.info.format == "JPEG"
    assert difference(result.image, picture()) < 8


def test_a_model_that_reads_gray_gets_gray():
    """Luma of ITU-R 601, as every image library has it."""
    result = decoded(encode(picture(), "PNG"), color="gray")

    luma = picture() @ np.array([0.299, 0.587, 0.114])
    assert result.image.mode == "L"
    assert difference(result.image, luma) < 1


def test_nothing_is_said_to_be_empty():
    """Not "not an image": the sender forgot the file."""
    with pytest.raises(EmptyImageError, match="0 bytes"):
        decoded(b"")


@pytest.mark.parametrize(
    "data", [b"hello", b"%PDF-1.7", b"%!PS-Adobe", b"<svg/>", b"P6 1 1 255 abc"]
)
def test_another_format_is_refused_by_naming_those_accepted(data):
    """Also those that Pillow could read: the list is an allow-list."""
    with pytest.raises(ImageFormatError, match="JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"):
        decoded(data)


@pytest.mark.parametrize("fmt", ["PPM", "TGA", "ICO", "PCX", "SGI", "JPEG2000"])
def test_a_good_image_of_another_format_is_not_read(fmt):
    """Nearly every hole in image libraries was in a rare format."""
    with pytest.raises(ImageFormatError):
        decoded(encode(picture(), fmt))


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_cut_off_file_is_damaged_and_not_of_another_format(fmt):
    """The sender hears that the upload broke, wherever it broke."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, fmt)

    with pytest.raises(ImageDecodeError):
        decoded(data[: len(data) // 2])
    with pytest.raises(ImageDecodeError):
        decoded(data[:16])


def test_the_pixel_cap_is_inclusive_and_named():
    """Exactly the cap passes; one column more says what is sent and what allowed."""
    limits = DecodeLimits(max_pixels=48 * 32)

    assert decoded(encode(picture(48, 32), "PNG"), limits=limits).info.width == 48
    with pytest.raises(ImageTooLargeError, match="49x32 pixels; at most 1536 pixels"):
        decoded(encode(picture(49, 32), "PNG"), limits=limits)


@pytest.mark.parametrize("size", [(101, 1), (1, 101)])
def test_a_side_has_a_cap_of_its_own(size):
    """Resampling tables grow with the side, however few pixels there are."""
    limits = DecodeLimits(max_side=100)
    just = tuple(min(length, 100) for length in size)
    assert decoded(encode(picture(*just), "PNG"), limits=limits).image.size == just

    with pytest.raises(ImageTooLargeError, match="at most 100 a side"):
        decoded(encode(picture(*size), "PNG"), limits=limits)


@pytest.mark.parametrize("max_pixels", [0, -1, 178_956_971])
def test_a_cap_beyond_what_pillow_checks_is_refused(max_pixels):
    """Above it, Pillow's own and other limit would answer."""
    with pytest.raises(ValueError, match=f"max_pixels is {max_pixels}; allowed are 1"):
        DecodeLimits(max_pixels=max_pixels)


def test_a_side_of_no_pixels_is_no_limit():
    with pytest.raises(ValueError, match="max_side is 0; at least 1 is needed"):
        DecodeLimits(max_side=0)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
def test_a_large_image_keeps_twice_the_scale_that_is_needed(fmt):
    """Smaller than that would change the pixels a model sees, larger costs time."""
    result = decoded(encode(picture(1600, 1200), fmt), short_side=224)

    assert (result.info.width, result.info.height) == (1600, 1200)
    assert 448 <= min(result.image.size) < 1200
