"""bytes → pixels: the shape always, the geometry exactly, the accuracy nearly."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from classifier.decode import DecodeLimits, ImageInfo
from classifier.errors import ImageDecodeError, ImageTooLargeError
from classifier.manifest import PreprocessSpec
from classifier.preprocess import center_box, fit, preprocess, preprocess_image
from tests.classifier.files import encode, oriented, picture
from tests.classifier.test_decode import decoded

GREEN = (0, 255, 0)


def spec(resize: str, **changes: object) -> PreprocessSpec:
    """How a small model reads images."""
    fields = {
        "height": 20,
        "width": 20,
        "color": "rgb",
        "resize": resize,
        "short_side": 24 if resize == "crop" else None,
        "interpolation": "bilinear",
        "background": GREEN,
    }
    return PreprocessSpec.model_validate(fields | changes)


def noise(width: int, height: int) -> Image.Image:
    """An image without any symmetry."""
    generator = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(
        generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))
specs = st.builds(
    spec,
    resize=st.sampled_from(["crop", "squash", "pad"]),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    color=st.sampled_from(["rgb", "gray"]),
    interpolation=st.sampled_from(["nearest", "box", "bilinear", "bicubic", "lanczos"]),
)


@settings(max_examples=150, deadline=None)
@given(sizes, specs)
def test_any_image_gets_the_shape_of_the_spec(size, wanted):
    """uint8 [H, W, C], contiguous or not, however long and thin the image is."""
    result = preprocess(encode(noise(*size), "BMP"), wanted)

    assert result.pixels.shape == wanted.shape
    assert result.pixels.dtype == np.uint8
    assert result.image == ImageInfo(*size, "BMP")


FLIPS = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)


def asymmetry(image: Image.Image, wanted: PreprocessSpec) -> np.ndarray:
    """How much the pixels of the mirrored images differ from mirrored pixels."""
    straight = fit(image, wanted).astype(int)
    mirrored = [
        np.flip(fit(image.transpose(flip), wanted), axis)
        for flip, axis in zip(FLIPS, (1, 0), strict=True)
    ]
    return np.abs(np.stack(mirrored) - straight)


# Below four times the target; above it a whole-number reduction comes first, which
# starts at the left and upper edge.
@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 79), st.integers(1, 79)),
    st.sampled_from(["crop", "squash"]),
)
def test_the_geometry_is_symmetric(size, resize):
    """A mirrored image gives mirrored pixels: nothing is off by half a pixel."""
    assert asymmetry(noise(*size), spec(resize)).max() <= 1


def test_large_photos_are_symmetric_but_for_a_level(sample_photos):
    """The quick reduction of large images shifts nothing that a network could see."""
    wanted = spec("crop", height=64, width=64, short_side=72)

    for photo in sample_photos[:6]:
        with Image.open(photo.path) as image:
            assert asymmetry(image.convert("RGB"), wanted).mean() < 1.5


@settings(max_examples=100, deadline=None)
@given(sizes, specs)
def test_the_crop_is_centered_and_inside(size, wanted):
    """And of the aspect that the model reads."""
    if wanted.resize != "crop":
        wanted = spec("crop", height=wanted.height, width=wanted.width)
    left, above, right, below = center_box(size, wanted)

    assert left >= 0
    assert above >= 0
    assert (left + right, above + below) == pytest.approx(size)
    assert (right - left) * wanted.height == pytest.approx(
        (below - above) * wanted.width
    )


def reference(path, short_side: int, side: int) -> np.ndarray:
    """The textbook order: scale the short side, then cut out the center."""
    image = Image.open(path).convert("RGB")
    scale = short_side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, above = (size[0] - side) // 2, (size[1] - side) // 2
    return np.asarray(image.crop((left, above, left + side, above + side)))


def test_one_resampling_does_what_the_textbook_does_in_two(sample_photos):
    """On real photos the two differ by a fraction of a pixel in the crop."""
    wanted = spec(
        "crop", height=224, width=224, short_side=256, interpolation="bicubic"
    )

    apart = [
        np.abs(
            preprocess(photo.path.read_bytes(), wanted).pixels.astype(int)
            - reference(photo.path, 256, 224)
        ).mean()
        for photo in sample_photos[:12]
    ]

    assert max(apart) < 8
    assert np.mean(apart) < 3


def test_decoding_at_reduced_scale_changes_little(data_dir):
    """A 2-megapixel JPEG read at half its size: under one level of 255 on average."""
    data = (data_dir / "awkward" / "xmp_test.jpg").read_bytes()
    wanted = spec("crop", height=224, width=224, short_side=256)

    quick = preprocess(data, wanted)
    full = fit(decoded(data, short_side=4000).image, wanted)

    assert min(decoded(data, short_side=256).image.size) < 1072
    assert np.abs(quick.pixels.astype(int) - full).mean() < 1


def test_squash_ignores_the_aspect():
    """All of the image is there, from edge to edge."""
    pixels = preprocess(encode(picture(60, 20), "PNG"), spec("squash")).pixels

    expected = picture(60, 20)
    assert np.abs(pixels[0, 0].astype(int) - expected[0, 0]).max() < 16
    assert np.abs(pixels[-1, -1].astype(int) - expected[-1, -1]).max() < 16


def test_pad_keeps_all_of_the_image_on_the_background():
    """Centered: 20 x 20 from 60 x 30 leaves five rows above and five below."""
    pixels = preprocess(
        encode(np.zeros((30, 60, 3), np.uint8), "PNG"), spec("pad")
    ).pixels

    assert (pixels[:5] == GREEN).all()
    assert (pixels[-5:] == GREEN).all()
    assert (pixels[5:-5] == 0).all()


def test_pad_enlarges_a_small_image_to_the_canvas():
    """It is scaled to fit, in either direction."""
    black = Image.new("RGB", (10, 5))

    pixels = preprocess_image(black, spec("pad")).pixels

    assert (pixels[5:15] == 0).all()
    assert (pixels[:5] == GREEN).all()


def test_the_longer_side_of_what_the_model_reads_decides_how_far_an_image_is_reduced():
    """Reduced for the shorter one, its columns would be blurred into one another."""
    image = noise(320, 320)
    expected = image.resize((160, 4), Image.Resampling.BILINEAR)

    pixels = preprocess_image(image, spec("squash", width=160, height=4)).pixels

    assert np.abs(pixels.astype(int) - np.asarray(expected)).mean() < 2


def test_pad_in_gray_has_the_luma_of_the_background():
    """Green is 150 of 255 (ITU-R 601)."""
    image = encode(np.zeros((30, 60, 3), np.uint8), "PNG")

    pixels = preprocess(image, spec("pad", color="gray")).pixels

    assert (pixels[:5] == 150).all()


def test_an_image_of_the_right_size_is_not_resampled():
    """Data sets of 28 or 32 pixels come through bit by bit."""
    image = np.asarray(noise(20, 20))

    pixels = preprocess(encode(image, "PNG"), spec("squash")).pixels

    assert (pixels == image).all()


def test_an_image_smaller_than_the_model_reads_is_told_of():
    """It was scaled up; the sender may have meant the larger one."""
    small = preprocess(encode(picture(19, 19), "PNG"), spec("squash"))
    wide = preprocess(encode(picture(20, 5), "PNG"), spec("squash"))

    assert small.warnings == (
        "the image is 19x19, smaller than the 20x20 that this model reads",
    )
    assert wide.warnings == ()


@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_image_opened_with_pillow_gives_what_its_bytes_give(fmt, orientation):
    """There is one preprocessing; the caller's image is left as it is."""
    data = oriented(fmt, orientation)
    image = Image.open(BytesIO(data))
    before = image.size

    from_image = preprocess_image(image, spec("crop"))
    from_bytes = preprocess(data, spec("crop"))

    assert (from_image.pixels == from_bytes.pixels).all()
    assert from_image.image == from_bytes.image
    assert image.size == before


def test_an_opened_image_that_cannot_be_read_is_an_image_error():
    """Pillow reads lazily: the damage appears only now."""
    data = encode(noise(64, 64), "PNG")
    cut = Image.open(BytesIO(data[: len(data) // 2]))
    closed = Image.open(BytesIO(data))
    closed.close()

    for image in (cut, closed, Image.new("RGB", (0, 5))):
        with pytest.raises(ImageDecodeError):
            preprocess_image(image, spec("crop"))


def test_an_opened_image_over_the_cap_is_refused():
    """Before it is read."""
    image = Image.open(BytesIO(encode(noise(64, 64), "PNG")))

    with pytest.raises(ImageTooLargeError, match="64x64"):
        preprocess_image(image, spec("crop"), limits=DecodeLimits(max_pixels=4095))
