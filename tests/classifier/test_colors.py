"""image of any mode → RGB or gray: scaled, composited, never clipped."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from classifier.colors import STRIP_PIXELS, Flattener
from classifier.errors import ImageDecodeError
from tests.classifier.files import chunk, encode, picture, tiff
from tests.classifier.test_decode import decoded

GRAY, TRUE_COLOR = 0, 2  # PNG, color types
WHITE, PINK = (255, 255, 255), (255, 0, 128)


def rgb(image: Image.Image) -> np.ndarray:
    """The pixels as whole numbers, [H, W, C]."""
    return np.asarray(image).astype(int)


def ramp16() -> np.ndarray:
    """All levels from black to white, uint16 [16, 4096]."""
    return np.arange(65536, dtype=np.uint16).reshape(16, 4096)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(fmt):
    """Pillow's own conversion makes everything above 255 white."""
    result = decoded(encode(Image.fromarray(ramp16()), fmt), short_side=16)

    expected = (ramp16() / 257)[..., None]
    assert np.abs(rgb(result.image) - expected).max() <= 1
    assert any("grayscale" in warning for warning in result.warnings)


def test_big_endian_samples_are_read_as_such():
    """Half of all TIFF writers."""
    swapped = Image.frombytes("I;16B", (4096, 16), ramp16().astype(">u2").tobytes())

    flat, _ = Flattener("gray", WHITE).flatten(swapped, 16)
    _, warned = Flattener("rgb", WHITE).flatten(swapped, 16)

    assert warned == ("the image is grayscale; this model reads color",)
    assert np.abs(rgb(flat) - ramp16() / 257).max() <= 1


def test_twelve_bits_are_scaled_to_their_own_white():
    """4095 is white in a file of 12 bits a sample; over 65535 it would be black."""
    pair = bytes.fromhex("fff800")  # two samples in three bytes: 4095, 2048
    data = tiff((258, 3, 1, 12), side=64, pixels=pair * (64 * 32))

    result = decoded(data, color="gray")

    assert rgb(result.image)[0, :2].tolist() == [255, 128]


def test_a_tiff_whose_zero_is_white_is_no_negative():
    """Scanners of documents write so; 8 bits and 16 bits alike."""
    dark = tiff((262, 3, 1, 0), pixels=b"\xff" * 64**2)
    deep = tiff((262, 3, 1, 0), (258, 3, 1, 16), pixels=b"\xff\xff" * 64**2)

    for data in (dark, deep):
        assert rgb(decoded(data, color="gray").image).max() == 0


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_a_defined_range_are_refused(mode):
    """No file says which of them is white; guessing would be a silent error."""
    data = encode(Image.new(mode, (8, 8)), "TIFF")

    with pytest.raises(ImageDecodeError, match=f"32-bit samples .mode {mode}."):
        decoded(data)


def half_transparent(mode: str) -> tuple[Image.Image, dict[str, object]]:
    """Left half opaque black, right half fully transparent; and how PNG says so."""
    alpha = Image.new("L", (8, 8), 255)
    alpha.paste(0, (4, 0, 8, 8))
    opaque = Image.new("RGB", (8, 8), (0, 0, 0))
    opaque.paste((200, 200, 200), (4, 0, 8, 8))
    if mode in {"RGBA", "LA"}:
        image = opaque.convert("RGB" if mode == "RGBA" else "L")
        image.putalpha(alpha)
        return image, {}
    if mode == "RGB":
        return opaque, {"transparency": (200, 200, 200)}
    if mode == "I;16":
        samples = np.zeros((8, 8), np.uint16)
        samples[:, 4:] = 51_400
        return Image.fromarray(samples), {"transparency": 51_400}
    if mode == "1":
        return opaque.convert("L").point(lambda v: 255 * (v > 0), "1"), {
            "transparency": 255
        }
    if mode == "P":
        image = Image.new("P", (8, 8), 0)
        image.putpalette([0, 0, 0, 200, 200, 200])
        image.paste(1, (4, 0, 8, 8))
        return image, {"transparency": 1}
    return opaque.convert("L"), {"transparency": 200}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "L", "1", "P", "I;16"])
def test_transparent_parts_show_the_background_of_the_bundle(mode):
    """What hides under alpha is whatever an editor left there."""
    image, how = half_transparent(mode)

    result = decoded(encode(image, "PNG", **how), background=PINK)

    assert rgb(result.image)[0, 0].tolist() == [0, 0, 0]
    assert rgb(result.image)[0, 7].tolist() == list(PINK)
    assert any("transparency" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("bits", "kind", "transparent", "hidden", "seen"),
    [
        (1, GRAY, (1,), b"\xff", b"\0"),
        (2, GRAY, (3,), b"\xff", b"\xaa"),
        (2, GRAY, (2,), b"\xaa", b"\xff"),
        (4, GRAY, (15,), b"\xff", b"\xee"),
        (4, GRAY, (0,), b"\0", b"\x11"),
        (8, GRAY, (15,), b"\x0f", b"\xff"),
        (16, GRAY, (0x1234,), b"\x12\x34", b"\x12\x35"),
        (8, TRUE_COLOR, (1, 2, 3), b"\1\2\3", b"\1\2\4"),
        (16, TRUE_COLOR, (0x1234,) * 3, b"\x12\x34" * 3, b"\x34\x00" * 3),
    ],
)
def test_the_transparent_color_of_a_png_has_the_scale_of_its_samples(
    bits, kind, transparent, hidden, seen
):
    """Of 4 bits, white is 15 in the file and 255 in the pixels."""
    header = struct.pack(">IIBBBBB", 8, 2, bits, kind, 0, 0, 0)
    rows = b"".join(
        b"\0" + pixel * (8 * bits * len(transparent) // 8 // len(pixel))
        for pixel in (hidden, seen)
    )
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", header),
            chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )

    pixels = rgb(decoded(data, background=PINK).image)

    assert (pixels[0] == PINK).all()
    assert (pixels[1] != PINK).any(axis=-1).all()


def test_a_palette_with_soft_transparency_is_blended():
    """Each entry of a palette may have an alpha of its own."""
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.putpixel((1, 0), 1)

    result = decoded(encode(image, "PNG", transparency=bytes([255, 128])))

    assert rgb(result.image)[0].tolist() == [[0, 0, 0], [127, 127, 127]]


def test_soft_alpha_mixes_with_the_background():
    """alpha x color + (1 - alpha) x background, as compositing is defined."""
    image = Image.new("RGBA", (4, 4), (0, 100, 200, 51))  # alpha 0.2

    result = decoded(encode(image, "WEBP", lossless=True, exact=True))

    expected = 0.2 * np.array([0, 100, 200]) + 0.8 * 255
    assert np.abs(rgb(result.image)[0, 0] - expected).max() <= 1


def test_inks_become_light():
    """A CMYK JPEG is stored inverted; read wrongly it is a negative."""
    image = Image.fromarray(picture()).convert("CMYK")

    result = decoded(encode(image, "JPEG", quality=95))

    assert np.abs(rgb(result.image) - picture()).mean() < 8


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_lightness_and_two_hues_become_light(color):
    """A TIFF in CIELAB, as archives of prints keep them: also for a model of gray."""
    lab = Image.new(
        "LAB", (8, 8), (128, 128, 128)
    )  # neither red, green, blue nor yellow

    result = decoded(encode(lab, "TIFF"), color=color)

    assert 110 < rgb(result.image).mean() < 130


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "L", "1", "P", "I;16"])
def test_a_large_image_is_converted_in_strips_to_the_same_picture(mode):
    """Strips bound the memory; their seams and their reduction must not show."""
    image, how = half_transparent(mode)
    large = image.resize((2048, 1024), Image.Resampling.NEAREST)
    large.info |= how
    assert large.width * large.height > STRIP_PIXELS
    flattener = Flattener("rgb", PINK)

    whole, _ = flattener.flatten(large, 1024)
    reduced, _ = flattener.flatten(large, 128)

    assert (whole.size, reduced.size) == ((2048, 1024), (512, 256))
    for flat in (whole, reduced):
        left, right = rgb(flat)[:, 0], rgb(flat)[:, -1]
        assert (left == 0).all()
        assert (right == PINK).all()


@pytest.mark.parametrize("size", [(3000, 700), (701, 2999), (1025, 1025)])
def test_a_reduction_that_does_not_divide_the_size_keeps_the_last_row(size):
    """Nothing of the picture is lost at its right and lower edge."""
    image = Image.fromarray(picture(*size)).convert("RGBA")

    flat, _ = Flattener("rgb", WHITE).flatten(image, 100)

    factor = min(size) // 200
    assert flat.size == (-(-size[0] // factor), -(-size[1] // factor))
    small = Image.fromarray(picture(*size)).resize(flat.size, Image.Resampling.BOX)
    assert np.abs(rgb(flat) - rgb(small)).max() <= 3


def test_an_image_of_the_right_mode_is_not_copied():
    """The common case costs nothing."""
    image = Image.fromarray(picture())

    flat, warned = Flattener("rgb", WHITE).flatten(image, 224)

    assert flat is image
    assert warned == ()
