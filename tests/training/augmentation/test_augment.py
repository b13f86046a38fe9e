"""Each random change does what its name says, to each image by itself, by its seed."""

import pytest
import torch
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
    random_augment,
    rotate,
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


def test_the_same_seed_gives_the_same_images(pixels):
    """And another seed gives others; values stay in range."""
    first, again, other = (
        augment(pixels, EVERYTHING, flipped=None, generator=seeded(s))
        for s in (1, 1, 2)
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (8, 3, 12, 10)
    assert 0 <= first.min() <= first.max() <= 1


def test_a_reflected_crop_is_a_window_of_the_padded_image(pixels):
    """Whatever the shift, the result is found in torch's own reflection."""
    cropped = reflect_crop(pixels, pad=3, generator=seeded())
    channels_first = pixels.permute(0, 3, 1, 2).float()
    padded = functional.pad(channels_first, (3, 3, 3, 3), mode="reflect").byte()

    for n in range(8):
        windows = padded[n].unfold(1, 12, 1).unfold(2, 10, 1)  # [3, 7, 7, 12, 10]
        wanted = cropped[n].permute(2, 0, 1)[:, None, None]
        assert (windows == wanted).all(-1).all(-1).all(0).any()


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs():
    """And about half of them mirrored in any one."""
    indices = torch.arange(1000)
    even, odd, third = (
        alternating_flip(indices, epoch=e, seed=3, total=1000) for e in (0, 1, 2)
    )

    assert (even ^ odd).all()
    assert torch.equal(even, third)
    assert 400 < even.sum() < 600


def test_cutout_covers_one_square_with_the_fill():
    """Wholly inside, at a place of its own in each image."""
    images = torch.ones(20, 3, 16, 16)
    covered = cutout(images, side=6, fill=torch.zeros(3), generator=seeded())
    holes = covered == 0

    assert (holes.sum((1, 2, 3)) == 3 * 36).all()
    assert (holes[:, 0].any(2).sum(1) == 6).all()
    assert len({tuple(hole.flatten().tolist()) for hole in holes[:, 0]}) > 10


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


def test_random_augment_leaves_gray_images_gray():
    """One channel has no saturation to change."""
    images = torch.rand(6, 1, 12, 12, generator=seeded())
    changed = random_augment(images, count=3, magnitude=10, generator=seeded())

    assert changed.shape == images.shape


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_have_mixed_truth(kind):
    """An image that is all of one value shows how much of it is left."""
    truth = torch.eye(10)
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 16, 16)
    config = AugmentConfig(**{kind: 1.0})

    for seed in range(5):
        mixed, shares = mix(images, truth, config, generator=seeded(seed))
        expected = (shares * torch.arange(10.0)).sum(1)
        assert torch.allclose(shares.sum(1), torch.ones(10))
        assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-4)


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
