"""Each random change does what its name says, to each image by itself, by its seed."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch.nn import functional

from training.augmentation.augment import (
    affine,
    alternating_flip,
    augment,
    beta,
    cutout,
    mix,
    reflect_crop,
    resized_crop,
)
from training.augmentation.random_augment import (
    OPERATIONS,
    brightness,
    contrast,
    posterize,
    random_augment,
    rotate,
    saturation,
    sharpness,
    shear_across,
    shear_down,
    solarize,
)
from training.configs.train_sections import AugmentConfig

EVERYTHING = AugmentConfig(
    flip="random",
    crop=4,
    rotate=15,
    zoom=0.1,
    shift=0.1,
    resized_crop=0.5,
    random_augment=(2, 7),
)


def seeded(seed=0):
    """A generator."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pixels():
    """uint8 [8, 12, 10, 3]."""
    return torch.randint(0, 256, (8, 12, 10, 3), dtype=torch.uint8, generator=seeded(9))


def test_nothing_changes_unless_it_is_named(pixels):
    """An empty section is the identity, in 0..1."""
    images = augment(pixels, AugmentConfig(), flipped=None, generator=seeded())

    assert torch.equal(images, pixels.permute(0, 3, 1, 2) / 255)


@pytest.mark.parametrize(
    "change",
    [
        {"flip": "random"},
        {"crop": 4},
        {"rotate": 15},
        {"zoom": 0.1},
        {"shift": 0.1},
        {"resized_crop": 0.5},
        {"random_augment": (2, 7)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_change_is_made_where_it_is_named_alone(change, pixels):
    """None waits for another one."""
    config = AugmentConfig(**change)

    images = augment(pixels, config, flipped=None, generator=seeded())

    assert not torch.allclose(images, pixels.permute(0, 3, 1, 2) / 255, atol=0.01)


def test_the_same_seed_gives_the_same_images(pixels):
    """And another seed gives others; values stay in range."""
    first, again, other = (
        augment(pixels, EVERYTHING, flipped=None, generator=seeded(s))
        for s in (1, 1, 2)
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (8, 3, 12, 10)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= first.min() <= first.max() <= 1


def test_a_reflected_crop_is_a_window_of_the_padded_image(pixels):
    """Of torch's own reflection: as far down and across as its shifts say."""
    shifts = torch.randint(-3, 4, (2, 8, 1), generator=seeded())
    channels_first = pixels.permute(0, 3, 1, 2).float()
    padded = functional.pad(channels_first, (3, 3, 3, 3), mode="reflect").byte()

    cropped = reflect_crop(pixels, shifts, mirrored=None)

    for n, (down, across) in enumerate(shifts.view(2, 8).T + 3):
        window = padded[n, :, down : down + 12, across : across + 10]
        assert torch.equal(cropped[n], window.permute(1, 2, 0))


def test_who_is_mirrored_is_so_after_the_crop(pixels):
    """From left to right; the others stay as they are."""
    shifts = torch.randint(-3, 4, (2, 8, 1), generator=seeded())
    mirrored = torch.arange(8) % 3 == 0

    both = reflect_crop(pixels, shifts, mirrored=mirrored)

    cropped = reflect_crop(pixels, shifts, mirrored=None)
    assert torch.equal(both[mirrored], cropped[mirrored].flip(2))
    assert torch.equal(both[~mirrored], cropped[~mirrored])


def test_crops_go_as_far_as_is_said_both_ways():
    """Of 1000 images that are ramps, the corners tell."""
    ramp = torch.arange(20, dtype=torch.uint8).view(1, 1, 20, 1).expand(1000, 16, 20, 1)

    images = augment(ramp, AugmentConfig(crop=4), flipped=None, generator=seeded())

    went = (images[:, 0, 8, 10] * 255 - 10).round().int()
    assert sorted(set(went.tolist())) == list(range(-4, 5))


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs():
    """And about half of them mirrored in any one; another seed begins with others."""
    indices = torch.arange(1000)
    even, odd, third = (
        alternating_flip(indices, epoch=e, seed=3, total=1000) for e in (0, 1, 2)
    )

    assert (even ^ odd).all()
    assert torch.equal(even, third)
    assert 400 < even.sum() < 600
    assert (even ^ alternating_flip(indices, epoch=0, seed=4, total=1000)).sum() > 400


def test_coins_mirror_about_half_of_the_images():
    """And leave the others as they are."""
    pixels = torch.tensor([[[[0], [255]]]], dtype=torch.uint8).expand(1000, 1, 2, 1)
    flip = AugmentConfig(flip="random")

    images = augment(pixels, flip, flipped=None, generator=seeded())

    left, right = images.view(1000, 2).T
    assert 400 < left.sum() < 600
    assert (left + right == 1).all()


def ramps(n):
    """The place of each pixel, across and down from the middle, [n, 2, 16, 20]."""
    down, across = torch.meshgrid(
        torch.arange(16.0) - 7.5, torch.arange(20.0) - 9.5, indexing="ij"
    )
    return torch.stack([across, down]).expand(n, 2, 16, 20)


def steps_of(images):
    """How far apart middle pixels were: across and down, each [N]."""
    across = images[:, 0, 8, 10] - images[:, 0, 8, 9]
    return across, images[:, 1, 8, 10] - images[:, 1, 7, 10]


@pytest.mark.parametrize("rotate", [0, 90])
def test_a_zoom_goes_as_far_as_is_said_both_ways(rotate):
    """Out and in, by up to half; on both axes alike, also of a turned image."""
    config = AugmentConfig(zoom=0.5, rotate=rotate)
    zoomed = affine(ramps(500), config, generator=seeded())

    middle = zoomed[:, :, 7:9, 9:11]
    across = (middle[:, :, 1, 1] - middle[:, :, 1, 0]).norm(dim=1)
    down = (middle[:, :, 1, 1] - middle[:, :, 0, 1]).norm(dim=1)
    assert torch.allclose(across, down, atol=1e-4)
    assert 0.5 <= 1 / across.max() < 0.55
    assert 1.45 < 1 / across.min() <= 1.5


def test_a_turn_goes_as_far_as_is_said_both_ways():
    """By up to 30 degrees, whose sine is one half."""
    turned = affine(ramps(500), AugmentConfig(rotate=30), generator=seeded())

    sine = turned[:, 1, 8, 10] - turned[:, 1, 8, 9]
    assert -0.5 - 1e-3 <= sine.min() < -0.48
    assert 0.48 < sine.max() <= 0.5 + 1e-3


def test_a_shift_goes_as_far_as_is_said_both_ways():
    """By up to a quarter of each side, to the left and to the right, up and down, each
    by itself.
    """
    shifted = affine(ramps(500), AugmentConfig(shift=0.25), generator=seeded())

    for axis, side in enumerate((20, 16)):
        went = (shifted - ramps(500))[:, axis, 8, 10]
        assert -0.25 * side - 1e-3 <= went.min() < -0.23 * side
        assert 0.23 * side < went.max() <= 0.25 * side + 1e-3
    both = (shifted - ramps(500))[:, :, 8, 10].T
    assert abs(torch.corrcoef(both)[0, 1]) < 0.2
    white = torch.ones(8, 3, 16, 20)  # as far as the color at the border goes
    assert torch.allclose(
        affine(white, AugmentConfig(shift=0.25), generator=seeded()), white
    )


def test_a_resized_crop_keeps_at_least_the_smallest_area():
    """And all sizes from there to the whole, evenly by area as in the paper."""
    crops = resized_crop(ramps(500), smallest=0.25, generator=seeded())

    for channel, axis in ((0, 2), (1, 1)):  # inside the image nothing is repeated
        assert (crops[:, channel].diff(dim=axis) > 0.1).all()
    across, down = steps_of(crops)
    area = across * down
    assert 0.25 - 1e-3 <= area.min() < 0.3
    assert 0.9 < area.max() <= 1 + 1e-3
    assert area.median() == pytest.approx(5 / 8, abs=0.03)
    assert 3 / 4 - 1e-3 <= (across / down).min() < (across / down).max() <= 4 / 3 + 1e-3


def test_a_resized_crop_comes_from_anywhere_in_the_image():
    """Its middle lies evenly on both axes, as far out as its size allows."""
    crops = resized_crop(ramps(2000), smallest=0.25, generator=seeded())
    across, down = steps_of(crops)

    middles = crops[:, :, 7:9, 9:11].mean((2, 3))  # [N, 2], from the image's own
    for middle, step, side in ((middles[:, 0], across, 20), (middles[:, 1], down, 16)):
        room = (side - side * step) / 2
        place = (middle / room)[room > 1]
        assert -1.05 < place.min() < -0.9
        assert 0.9 < place.max() < 1.05
        assert place.std() == pytest.approx(3**-0.5, abs=0.05)  # of -1 to 1, evenly


def test_cutout_covers_one_square_with_the_fill():
    """Wholly inside, at a place of its own in each image."""
    images = torch.ones(200, 3, 16, 12)
    covered = cutout(images, side=6, fill=torch.zeros(3), generator=seeded())
    holes = covered == 0

    assert (holes.sum((1, 2, 3)) == 3 * 36).all()
    assert (holes[:, 0].any(2).sum(1) == 6).all()
    tops, lefts = (holes[:, 0].any(axis).byte().argmax(1) for axis in (2, 1))
    assert set(tops.tolist()) == set(range(11))
    assert set(lefts.tolist()) == set(range(7))


def test_a_turn_by_nothing_is_the_identity(pixels):
    """Sampling at the pixels' own places gives the pixels."""
    images = pixels.permute(0, 3, 1, 2) / 255
    config = AugmentConfig(shift=1e-9)

    assert torch.allclose(affine(images, config, generator=seeded()), images, atol=1e-4)


def test_a_resized_crop_of_everything_is_nearly_everything(pixels):
    """Area 1 with an aspect other than 1 is cut at the border only."""
    images = torch.linspace(0, 1, 16).view(1, 1, 1, 16).expand(4, 3, 16, 16)
    crops = resized_crop(images, smallest=0.25, generator=seeded())

    assert crops.shape == images.shape
    assert (crops.diff(dim=3) >= -1e-6).all()  # a ramp stays a ramp
    assert (crops.amax((1, 2, 3)) - crops.amin((1, 2, 3)) < 1).any()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.__name__)
def test_an_operation_of_strength_zero_changes_nothing(operation, pixels):
    """Magnitude is how far each goes from the image."""
    images = pixels.permute(0, 3, 1, 2) / 255  # with black and white among them
    nothing = torch.zeros(8, 1, 1, 1)

    assert torch.allclose(operation(images, nothing), images, atol=5e-3)


def test_solarizing_at_full_strength_inverts_everything(pixels):
    """Black, too, which no threshold above 0 would reach."""
    images = pixels.permute(0, 3, 1, 2) / 255

    assert torch.equal(solarize(images, torch.ones(8, 1, 1, 1)), 1 - images)


def test_full_magnitude_is_as_strong_as_the_operations_say():
    """Brightness goes furthest with a plain gray: to 0.1 or 1.9 times of it."""
    gray = torch.full((300, 3, 4, 4), 0.4)

    changed = random_augment(gray, count=1, magnitude=10, generator=seeded())

    assert changed.min() == pytest.approx(0.04)
    assert changed.max() == pytest.approx(0.76)


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.4, 1.0])
@pytest.mark.parametrize(
    ("operation", "pillow"),
    [
        (brightness, ImageEnhance.Brightness),
        (contrast, ImageEnhance.Contrast),
        (saturation, ImageEnhance.Color),
        (sharpness, ImageEnhance.Sharpness),
    ],
)
def test_operations_change_pixels_as_in_pillow(operation, pillow, strength, pixels):
    """By a factor of 0.1 to 1.9; within a byte and a half, for Pillow rounds.

    Pillow does not sharpen the border.
    """
    border = 1 if operation is sharpness else 0
    strengths = torch.full((8, 1, 1, 1), strength)
    changed = operation(pixels.permute(0, 3, 1, 2) / 255, strengths).clamp(0, 1)

    for image, found in zip(pixels, changed.permute(0, 2, 3, 1), strict=True):
        enhanced = pillow(Image.fromarray(image.numpy())).enhance(1 + 0.9 * strength)
        differences = np.abs(255 * found.numpy() - np.asarray(enhanced))
        assert (
            differences[border : -border or None, border : -border or None].max() < 1.5
        )


def test_a_blurred_copy_is_that_of_the_pixels_within_the_border():
    """A dot at the corner of a dark image, and an image of one pixel."""
    dot = torch.zeros(1, 1, 5, 5)
    dot[..., 0, 0] = 1.3
    alone = torch.full((1, 1, 1, 1), 0.5)

    blurred = sharpness(dot, -torch.ones(1, 1, 1, 1))[0, 0]

    # of nine cells four are the dot's own, for the border is repeated, and it has five
    assert blurred[0, 0] == pytest.approx(1.3 * (8 + 0.1 * 5) / 13)
    assert torch.allclose(sharpness(alone, torch.ones(1, 1, 1, 1)), alone)
    plain = torch.full((1, 3, 5, 5), 0.5)  # up to its border
    assert torch.allclose(sharpness(plain, -torch.ones(1, 1, 1, 1)), plain)


def test_posterize_keeps_four_bits_at_full_strength():
    """16 levels of 256, whatever the sign; a threshold has none either."""
    ramp = torch.arange(256).view(1, 1, 16, 16) / 255
    one = torch.ones(1, 1, 1, 1)

    assert len(posterize(ramp, one).unique()) == 16
    for operation in (posterize, solarize):
        assert torch.equal(operation(ramp, one / 2), operation(ramp, -one / 2))


def test_every_operation_is_drawn_both_ways():
    """And each image has what one of them makes of it."""
    images = torch.rand(400, 3, 8, 8, generator=seeded())

    changed = random_augment(images, count=1, magnitude=10, generator=seeded())

    drawn = torch.zeros(400, dtype=torch.bool)
    for operation in OPERATIONS:
        for sign in (1, -1):
            made = operation(images, torch.full((400, 1, 1, 1), sign)).clamp(0, 1)
            own = (made - changed).abs().amax((1, 2, 3)) < 1e-5
            assert own.any(), (operation.__name__, sign)
            drawn |= own
    assert drawn.all()


def test_several_operations_are_made_one_after_the_other():
    """Each draws its own for each image."""
    images = torch.rand(20, 3, 8, 8, generator=seeded())
    draws = seeded(1)

    at_once = random_augment(images, count=3, magnitude=7, generator=seeded(1))

    for _ in range(3):
        images = random_augment(images, count=1, magnitude=7, generator=draws)
    assert torch.equal(at_once, images)


def test_random_augment_leaves_gray_images_gray():
    """One channel has no saturation to change."""
    images = torch.rand(6, 1, 12, 12, generator=seeded())
    changed = random_augment(images, count=3, magnitude=10, generator=seeded())

    assert changed.shape == images.shape


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_have_mixed_truth(kind):
    """An image that is all of one value shows how much of it is left."""
    truth = torch.eye(10)
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 16, 24)
    config = AugmentConfig(**{kind: 1.0})

    for seed in range(5):
        mixed, shares = mix(images, truth, config, generator=seeded(seed))
        expected = (shares * torch.arange(10.0)).sum(1)
        assert torch.allclose(shares.sum(1), torch.ones(10))
        assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-4)


def test_one_coin_a_batch_chooses_between_mixup_and_cutmix():
    """A pixel of a mixup is between two images, that of a cutmix of one of them.

    Each has its own alpha: here one always blends by halves, the other all or nothing.
    """
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 16, 16)
    config = AugmentConfig(mixup=1000, cutmix=0.001)
    pasted = 0
    for seed in range(40):
        mixed, shares = mix(images, torch.eye(10), config, generator=seeded(seed))
        whole = bool((mixed == mixed.round()).all())
        assert whole == bool((shares.amax(1) > 0.6).all())
        pasted += whole

    assert 10 <= pasted <= 30


def test_a_box_is_pasted_anywhere_in_the_image():
    """Also at the far end of the longer side."""
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 16, 24)
    changed = torch.zeros(16, 24, dtype=torch.bool)
    for seed in range(60):
        mixed, _ = mix(
            images, torch.eye(10), AugmentConfig(cutmix=1000), generator=seeded(seed)
        )
        changed |= (mixed != images).any(0)[0]

    assert changed.all()


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 8.0, 1000.0])
def test_the_shares_of_a_mix_follow_their_beta_distribution(alpha):
    """However large or small alpha is, a draw takes as long and has its moments."""
    generator = seeded()
    shares = [beta(alpha, generator) for _ in range(3000)]
    drawn = torch.tensor(shares, dtype=torch.float64) - 0.5

    variance = 1 / (8 * alpha + 4)
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    error = 4 / len(drawn) ** 0.5  # four standard errors
    assert abs(drawn.mean()) < error * variance**0.5
    assert abs((drawn**2).mean() - variance) < error * (fourth - variance**2) ** 0.5
    assert abs((drawn**4).mean() / fourth - 1) < 0.2


@pytest.mark.parametrize(("height", "width"), [(60, 180), (180, 60), (90, 90)])
@pytest.mark.parametrize("by", ["affine", "rotate"])
def test_what_is_turned_keeps_its_shape(by, height, width):
    """A disc stays a disc where images are no squares."""
    down, across = torch.meshgrid(
        torch.arange(height) - height / 2 + 0.5,
        torch.arange(width) - width / 2 + 0.5,
        indexing="ij",
    )
    disc = (down**2 + across**2 < 20**2).float().expand(8, 3, height, width)
    if by == "affine":
        turned = affine(disc, AugmentConfig(rotate=90), generator=seeded())
    else:
        turned = rotate(disc, torch.linspace(-1, 1, 8).view(8, 1, 1, 1))

    assert (turned - disc).abs().mean((1, 2, 3)).max() < 0.01


@pytest.mark.parametrize(("operation", "axis"), [(shear_across, 0), (shear_down, 1)])
def test_a_lean_is_of_so_many_pixels(operation, axis):
    """Three tenths of the way from the middle line, whatever the sides of the image."""
    ramps = torch.meshgrid(
        torch.arange(40.0) - 19.5, torch.arange(120.0) - 59.5, indexing="ij"
    )
    images = ramps[1 - axis].expand(1, 1, 40, 120)  # across, or down
    leaned = operation(images, torch.ones(1, 1, 1, 1))
    inner = (slice(None), slice(None), slice(18, 22), slice(40, 80))

    expected = ramps[1 - axis] + 0.3 * ramps[axis]
    assert torch.allclose(leaned[inner], expected[18:22, 40:80], atol=1e-3)


@pytest.mark.parametrize(("strength", "degrees"), [(1.0, 30), (-0.5, -15)])
def test_a_turn_is_of_so_many_degrees(strength, degrees):
    """The place that each pixel comes from is turned the other way."""
    turned = rotate(ramps(1), torch.full((1, 1, 1, 1), strength))[0, :, 5:11, 6:14]

    angle = torch.tensor(degrees).deg2rad()
    across, down = ramps(1)[0, :, 5:11, 6:14]
    expected = [
        angle.cos() * across - angle.sin() * down,
        angle.sin() * across + angle.cos() * down,
    ]
    assert torch.allclose(turned, torch.stack(expected), atol=1e-3)
