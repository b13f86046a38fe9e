"""What the probe sees of a photo: as it is served, mirrored, and cuts of all of it."""

import numpy as np

from classifier.manifest import PreprocessSpec
from training.transfer.features import cuts, whole_photo

SERVED = {
    "height": 32,
    "width": 32,
    "color": "rgb",
    "interpolation": "bicubic",
    "background": (255, 255, 255),
}


def test_cuts_come_from_the_whole_photo():
    """Where the middle is served, near, the rest of the photo still teaches."""
    near = PreprocessSpec(resize="crop", short_side=64, **SERVED)

    whole = whole_photo(near)

    assert whole.short_side == 32
    assert whole.shape == near.shape
    assert PreprocessSpec.model_validate(whole.model_dump()) == whole


def test_a_squashed_photo_is_whole_already():
    """There is nothing to add."""
    squashed = PreprocessSpec(resize="squash", short_side=None, **SERVED)

    assert whole_photo(squashed) == squashed


def test_half_of_the_cuts_are_mirrored():
    """A ramp that rises to the right falls in about every second cut."""
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, None, :, None], (20, 32, 32, 3))

    rising = [
        float(image[0, -1, 0]) > float(image[0, 0, 0])
        for cut in cuts(np.ascontiguousarray(pixels), 10, 0.5, seed=0)
        for image in cut
    ]

    assert 0.4 < np.mean(rising) < 0.6


def test_cuts_are_the_same_for_the_same_seed():
    """A cached feature is what would be computed again."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)

    one, again = (list(cuts(pixels, 2, 0.3, seed=4)) for _ in range(2))

    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], one[1])
