"""One step does what its config says, and no more."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from classifier.manifest import Task
from tests.training.loop.runs import CONFIG, write_config, write_digits
from training.configs.config import read_config
from training.data.batches import Batch
from training.errors import DeviceFullError
from training.loop.arithmetic import seed_step
from training.loop.distributed import Ranks
from training.loop.loop import Room, fit
from training.loop.runs import prepare
from training.loop.step import Steps
from training.loop.validation import Validation
from training.objectives.objective import build_objective

RANKS = Ranks(0, 1, torch.device("cpu"))
CONSTANT = ("schedule.shape='constant'", "schedule.warmup=0.0")
EPOCH = "train.epochs=1"
PLAIN = ("train.ema=0.0", "augment={}", "train.epochs=0.5")  # one step of 2


@pytest.fixture
def root(tmp_path):
    """Digits, and a config of SGD alone: Muon scales filters without a rate, too."""
    text = CONFIG.replace('kind = "muon"', 'kind = "sgd"')
    write_config(tmp_path, text.replace('kind = "adamw"', 'kind = "sgd"'))
    return write_digits(tmp_path, train=60)


def normed() -> nn.Module:
    """Filters, a batch norm and a head for the digits."""
    torch.manual_seed(0)
    filters = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    return nn.Sequential(
        filters, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )


def moved(root, *changes, folder="run"):
    """How far a step has moved each weight and each statistic: the farthest of each."""
    config = read_config(root / "tiny.toml", (*PLAIN, *changes))
    ready = replace(prepare(config, root=root, ranks=RANKS), network=normed())
    outcome = fit(
        ready.network, config, train=ready.batches, validation=None,
        objective=ready.objective, room=Room(root / folder, RANKS),
    )  # fmt: skip

    assert outcome.steps == 1
    after, before = ready.network.state_dict(), normed().state_dict()
    return {name: (after[name] - before[name]).abs().max().item() for name in before}


def test_a_gradient_is_as_long_as_its_limit_allows(root):
    """Cut to 1e-9, it moves no weight; uncut, it moves those of the head."""
    weights = [name for name, _ in normed().named_parameters()]

    cut = moved(root, *CONSTANT, "train.clip_norm=1e-9")
    assert max(cut[name] for name in weights) < 1e-8
    uncut = moved(root, *CONSTANT, folder="uncut")
    assert uncut["3.weight"] > 1e-5


def test_the_first_step_has_the_rate_of_the_beginning(root):
    """A warm-up begins at 0: no weight moves before the second step."""
    still = moved(root, "schedule.shape='constant'", "schedule.warmup=0.5")

    assert max(still[name] for name, _ in normed().named_parameters()) == 0


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_stay_as_they_were(root, frozen):
    """Those of the batch norms, which otherwise follow the images of each step."""
    statistics = moved(root, *CONSTANT, f"train.frozen_norms={str(frozen).lower()}")

    assert (statistics["0.1.running_mean"] == 0) is frozen
    assert (statistics["0.1.num_batches_tracked"] == 0) is frozen


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_that_is_computed_is_in_the_precision_of_the_config(root, precision):
    """In the steps of network and proxy, and when validation is looked at."""
    changes = ("selection.proxy='lenet5'", f"train.precision='{precision}'", EPOCH)
    config = read_config(root / "tiny.toml", (*PLAIN, *changes))
    ready = prepare(config, root=root, ranks=RANKS)
    network, proxy = normed(), ready.proxy
    seen = set()
    for name, module in (("network", network), ("proxy", proxy)):
        module.register_forward_hook(
            lambda module, inputs, logits, name=name: seen.add(
                (name, module.training, torch.is_grad_enabled(), str(logits.dtype))
            )
        )

    fit(
        network, config, train=ready.batches, objective=ready.objective,
        validation=Validation(
            ready.splits.validation, config.data, ready.objective, batch_size=20
        ),
        room=Room(root / "run", RANKS), proxy=proxy,
    )  # fmt: skip

    dtype = {"fp32": "torch.float32", "bf16": "torch.bfloat16"}[precision]
    assert seen == {
        ("network", True, True, dtype),
        ("network", False, False, dtype),
        ("proxy", True, False, dtype),  # chooses
        ("proxy", True, True, dtype),  # learns
    }


def test_what_a_step_draws_follows_from_seed_step_and_rank():
    """Augmentation by the generator, dropout by torch's own; the same once more."""

    def drawn(*place):
        generator = seed_step(*place, RANKS.device)
        return torch.rand(1, generator=generator).item(), torch.rand(1).item()

    places = [(0, 7, 0), (0, 7, 1), (0, 8, 0), (1, 7, 0)]
    augmented, dropped = zip(*(drawn(*place) for place in places), strict=True)

    assert len(set(augmented)) == len(set(dropped)) == len(places)
    assert drawn(*places[0]) == (augmented[0], dropped[0])


def seen(root, change, pixels, *steps):
    """What a network sees of the same images at some of ten steps, five an epoch."""
    config = read_config(root / "tiny.toml", (*PLAIN, f"augment={{{change}}}"))
    objective = build_objective(Task.MULTICLASS, labels=10)
    counted = torch.arange(len(pixels))
    batch = Batch(pixels, counted, counted)
    taken = Steps(config, objective, samples=len(pixels))
    return [
        taken.images(
            batch,
            taken.moment(step, steps_per_epoch=5, progress=step / 10),
            seed_step(config.seed, step, 0, RANKS.device),
        )
        for step in steps
    ]


def test_images_are_mirrored_in_turn_from_epoch_to_epoch(root):
    """All steps of an epoch show an image the same way, and those of the next not."""
    pixels = torch.randint(0, 256, (20, 28, 28, 1), dtype=torch.uint8)

    first, fifth, sixth = seen(root, "flip='alternating'", pixels, 0, 4, 5)

    assert torch.equal(first, fifth)
    assert torch.equal(first, sixth.flip(-1))


def test_images_grow_when_the_config_says_so(root):
    """Each pixel of a smaller one is a mean of those that it stands for."""
    pixels = torch.randint(0, 256, (2, 28, 28, 1), dtype=torch.uint8)

    small, large = seen(root, "sizes=[[0.5,14],[1.0,28]]", pixels, 4, 5)

    assert large.shape == (2, 1, 28, 28)
    halves = large.view(2, 1, 14, 2, 14, 2).mean((3, 5))
    assert torch.allclose(small, halves, atol=1e-5)


def test_what_is_cut_out_is_the_mean_of_the_data(root):
    """0 once the images are normalized: nothing that a first layer would see."""
    white = torch.full((3, 28, 28, 1), 255, dtype=torch.uint8)

    [images] = seen(root, "cutout=5", white, 0)

    assert ((images == 0).sum((1, 2, 3)) == 25).all()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_alone_are_learned_from(root, kind):
    """Their truth are shares of the labels, in place of indices."""
    mixed = moved(root, *CONSTANT, f"augment={{{kind}=1.0}}")

    assert mixed["3.weight"] > 1e-5


def test_a_batch_that_is_too_large_for_the_device_says_what_to_change(root):
    """And not torch's page on its allocator."""

    def forward(images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried 20 GiB.\nGPU 0 …")

    network = normed()
    network.forward = forward
    config = read_config(root / "tiny.toml", PLAIN)
    ready = prepare(config, root=root, ranks=RANKS)

    with pytest.raises(
        DeviceFullError,
        match=r"^\d+ images in fp32 .*batch_size must be smaller: CUDA.*20 GiB\.$",
    ):
        fit(
            network, config, train=ready.batches, validation=None,
            objective=ready.objective, room=Room(root / "run", RANKS),
        )  # fmt: skip
