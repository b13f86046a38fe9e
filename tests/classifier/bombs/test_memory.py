"""Small files that ask for much: refused before memory or time grows."""

import pytest
from PIL import Image

from classifier.decode import MAX_BYTES_A_PIXEL, DecodeLimits
from classifier.errors import ImageDecodeError, ImageTooLargeError
from tests.classifier.files import (
    png_that_declares,
    tiff,
)
from tests.classifier.processes import peak_mib, python
from tests.classifier.test_decode import decoded

PIXELS = 50_000_000  # the default cap
SIDE = 3_000  # of images whose memory is looked at
STRIPS = 16 * 2**20  # what does not grow with the image

DECODE = """
import sys
from pathlib import Path
from classifier.decode import decode
from classifier.errors import ImageError

for name in sys.argv[1:]:
    try:
        decode(
            Path(name).read_bytes(),
            color="rgb",
            background=(255, 255, 255),
            short_side=224,
        )
    except ImageError as error:
        print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def idle_mib() -> int:
    """What a process holds that has imported the decoder and has no image."""
    return peak_mib(DECODE)


def test_a_tile_whose_sides_are_text_costs_nothing(tmp_path, idle_mib):
    """Text times a number is gigabytes of text."""
    bomb = tiff((322, 2, 9, b"AAAAAAAA\0"), (323, 4, 1, 400_000_000))
    (tmp_path / "bomb.tif").write_bytes(bomb)

    used = peak_mib(DECODE, tmp_path / "bomb.tif") - idle_mib

    assert used < 50


@pytest.mark.parametrize(
    ("width", "height"),
    [(PIXELS + 1, 1), (7_072, 7_072), (65_536, 2), (2**31 - 1, 2**31 - 1)],
)
def test_a_declared_size_over_the_cap_is_refused(width, height):
    """Whether Pillow's own limit or ours sees it first."""
    with pytest.raises(ImageTooLargeError, match=r"at most \d+ (pixels|a side) are"):
        decoded(png_that_declares(width, height))


def test_refusing_a_bomb_allocates_nothing(tmp_path, idle_mib):
    """The size is checked before a pixel is decoded: 4 gigapixels, a hundred bytes."""
    (tmp_path / "wide.png").write_bytes(png_that_declares(65_000, 65_000))
    (tmp_path / "over.png").write_bytes(png_that_declares(12_000, 12_000))

    result = python(DECODE, *tmp_path.iterdir())
    used = peak_mib(DECODE, *tmp_path.iterdir()) - idle_mib

    assert result.stdout.split() == ["ImageTooLargeError"] * 2
    assert used < 50


def test_a_file_that_declares_much_and_ends_there_is_damaged():
    """Over the cap it is too large; under it the missing pixels are the trouble."""
    limits = DecodeLimits(max_pixels=10_000)

    with pytest.raises(ImageTooLargeError):
        decoded(png_that_declares(200, 200), limits=limits)
    with pytest.raises(ImageDecodeError):
        decoded(png_that_declares(100, 100), limits=limits)


# Bytes a pixel that `classifier.decode` names, on the mode that needs most of them.
WORST = {
    "PNG": ("RGBA", 9, {"compress_level": 1}),
    "JPEG": ("CMYK", 9, {"progressive": True}),
    "TIFF": ("CMYK", 9, {"compression": "tiff_lzw"}),
    "GIF": ("P", 9, {}),
    "AVIF": ("RGBA", 12, {"speed": 10}),
    "WEBP": ("RGBA", 17, {"method": 0}),
}


@pytest.mark.parametrize("fmt", WORST)
def test_a_large_image_takes_the_memory_that_the_limits_promise(
    fmt, tmp_path, idle_mib
):
    """Conversions work in strips and large ones on less than all pixels."""
    mode, promised, how = WORST[fmt]
    assert promised <= MAX_BYTES_A_PIXEL
    Image.new(mode, (SIDE, SIDE)).save(tmp_path / "large", fmt, **how)

    used = peak_mib(DECODE, tmp_path / "large") - idle_mib

    assert used * 2**20 < promised * SIDE**2 + STRIPS
