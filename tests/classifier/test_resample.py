"""`resample`: what Pillow would give, whoever computes it."""

import platform
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from classifier import resample as module
from classifier.resample import PILLOW, resample, why_pillow_scales

HAS_WHEEL = (sys.platform, platform.machine()) != ("linux", "aarch64")

sizes = st.tuples(st.integers(1, 240), st.integers(1, 240))
targets = st.tuples(st.integers(1, 80), st.integers(1, 80))
fractions = st.floats(0, 1)


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """An image without any symmetry, which overshoots wherever anything can."""
    width, height = size
    generator = np.random.default_rng(width * 1000 + height)
    levels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels).convert(mode)


def differences(image, size, interpolation, box=None) -> np.ndarray:
    """|levels| between ours and Pillow's."""
    expected = image.resize(size, PILLOW[interpolation], box=box, reducing_gap=2.0)
    found = resample(image, size, interpolation, box=box)
    assert (found.mode, found.size) == (expected.mode, expected.size)
    return np.abs(np.asarray(found, np.int16) - np.asarray(expected))


@pytest.fixture(autouse=True)
def tried_anew():
    """Whether the kernels fit is kept; a test that changes it leaves nothing."""
    yield
    why_pillow_scales.cache_clear()


@pytest.mark.skipif(not HAS_WHEEL, reason="no wheel of cykooz-resizer here")
def test_the_kernels_are_used():
    """With the versions of constraints.txt; a new Pillow has to be tried first."""
    assert why_pillow_scales() is None


@settings(max_examples=300, deadline=None)
@given(sizes, targets, st.tuples(fractions, fractions), st.sampled_from(["RGB", "L"]))
def test_bilinear_is_pillows_to_a_level(size, target, corner, mode):
    """For every part of every image, smaller or larger."""
    (width, height), (left, top) = size, corner
    box = (left * (width - 1) / 2, top * (height - 1) / 2, width, height - top / 4)

    assert differences(noise(size, mode), target, "bilinear", box).max() <= 1


@settings(max_examples=200, deadline=None)
@given(sizes, targets, st.sampled_from(sorted(PILLOW)))
def test_every_filter_gives_nearly_what_pillow_gives(size, target, name):
    """Each pass clips what overshoots, and here their order is another."""
    found = differences(noise(size), target, name)

    assert found.mean() <= 2
    assert found.max() <= 64


@pytest.mark.parametrize("name", ["bicubic", "lanczos"])
def test_photos_differ_by_less_than_a_level(name, sample_photos):
    """Not one level in two hundred by more than two."""
    for photo in sample_photos[:12]:
        with Image.open(photo.path) as image:
            found = differences(image.convert("RGB"), (224, 224), name)
        assert found.mean() < 0.3
        assert np.mean(found > 2) < 0.005


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear"])
def test_large_reductions_and_simple_filters_are_pillows_own(name):
    """Bilinear from four times the target on: blocks of pixels are averaged first."""
    assert differences(noise((240, 96)), (24, 24), name).max() == 0


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(st.integers(8, 200), st.integers(8, 200)),
    st.tuples(st.integers(0, 15), st.integers(0, 15)),
    st.sampled_from(["bicubic", "lanczos"]),
)
def test_what_gets_no_smaller_is_pillows_own(size, corner, name):
    """The kernels' bicubic reads beyond its buffer in one such image of a few hundred:
    where a pixel of the border has its middle in that of a pixel.
    """
    (width, height), (left, top) = size, (c / 4 for c in corner)
    box = (left, top, min(width, left + 5.5), min(height, top + 5.5))

    assert differences(noise(size), (11, 11), name, box).max() == 0


@pytest.mark.parametrize("size", [(100, 40), (40, 100)])
def test_what_gets_smaller_in_one_direction_alone_is_pillows_own(size):
    """The kernels' bicubic is no safer for the other one."""
    assert differences(noise(size), (40, 40), "bicubic").max() == 0


def test_threads_do_not_disturb_each_other():
    """Each lane scales by itself."""
    images = [noise((200 + n, 300 - n)) for n in range(16)]
    alone = [np.asarray(resample(image, (64, 64), "bicubic")) for image in images]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            for found, expected in zip(
                pool.map(lambda image: resample(image, (64, 64), "bicubic"), images),
                alone,
                strict=True,
            ):
                assert (np.asarray(found) == expected).all()


def no_wheel(monkeypatch):
    """The import failed."""
    monkeypatch.setattr(module, "kernels", None)


def next_pillow(monkeypatch):
    """Its images may lie in memory otherwise."""
    monkeypatch.setattr(PIL, "__version__", "14.0.0")


def other_arithmetic(monkeypatch):
    """A processor, or a version of the kernels, that computes something else."""
    monkeypatch.setitem(module.KERNELS, "bilinear", "lanczos3")


@pytest.mark.skipif(not HAS_WHEEL, reason="no wheel of cykooz-resizer here")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_wheel, "cykooz-resizer is not installed"),
        (next_pillow, "the kernels were tried with Pillow 13.x, not 14.0.0"),
        (other_arithmetic, "the kernels scale RGB otherwise than Pillow"),
    ],
)
def test_without_fitting_kernels_pillow_scales_and_the_reason_is_known(
    monkeypatch, change, reason
):
    """Slower, and never wrong."""
    change(monkeypatch)
    why_pillow_scales.cache_clear()

    assert reason in why_pillow_scales()
    assert differences(noise((60, 50)), (32, 32), "bicubic").max() == 0
