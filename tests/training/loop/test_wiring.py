"""What the config asks for, and what one stage makes, arrives where it is used."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from classifier.manifest import Task
from tests.training.loop.runs import write_config, write_digits
from training.augmentation.augment import _shifts
from training.configs.config import Config, read_config
from training.configs.sections import OptimizerConfig, ScheduleConfig
from training.data.batches import Batch
from training.graphs.export import PixelsToLogits
from training.loop.arithmetic import seed_step
from training.loop.checkpoint import read_checkpoint, write_checkpoint
from training.loop.distributed import Ranks
from training.loop.log import read_log
from training.loop.runs import Trained, prepare, train
from training.loop.step import Learner, Steps
from training.loop.validation import Validation
from training.objectives.objective import build_objective, decisions_right
from training.optimizers.optimizers import Optimizers

ALONE = Ranks(0, 1, torch.device("cpu"))
COLOR = (
    "data.color=rgb",
    "data.mean=[0.1,0.5,0.9]",
    "data.std=[0.2,0.3,0.4]",
    "augment={}",
)
Weights = dict[str, Tensor]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with sixty digits, and a config for them."""
    write_config(tmp_path)
    return write_digits(tmp_path, train=60)


def config_of(root: Path, *changes: str) -> Config:
    """The config with some changes."""
    return read_config(root / "tiny.toml", changes)


def trained(root: Path, *changes: str) -> Trained:
    """A run in the folder `run`, or the rest of it."""
    config = config_of(root, *changes)
    return train(config, root=root, folder=root / "run", ranks=ALONE, live=None)


def steps_of(config: Config, samples: int) -> Steps:
    """Steps on ten labels."""
    return Steps(config, build_objective(Task.MULTICLASS, labels=10), samples=samples)


def test_a_step_sees_pixels_as_the_graph_does(root: Path):
    """Each channel by its own mean and deviation; else other pixels were learned."""
    config = config_of(root, *COLOR)
    pixels = torch.randint(0, 256, (3, 28, 28, 3), dtype=torch.uint8)
    labels, steps = torch.arange(3), steps_of(config, 3)
    draws = seed_step(0, 0, 0, ALONE.device)

    seen = steps.images(Batch(pixels, labels, labels), steps.at(0.0), draws)

    served = PixelsToLogits(nn.Identity(), config.data.mean, config.data.std)(pixels)
    assert torch.allclose(seen, served, atol=1e-5)


def test_an_alternating_flip_is_the_images_own(root: Path):
    """Wherever in a batch it stands; by its place it would be a coin."""
    config = config_of(root, "augment={flip='alternating'}")
    pixels = torch.randint(0, 256, (20, 28, 28, 1), dtype=torch.uint8)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    steps = steps_of(config, 20)

    one, other = (
        steps.images(
            Batch(pixels[i], i, i), steps.at(0.0), seed_step(0, 0, 0, ALONE.device)
        )
        for i in (torch.arange(20), order)
    )

    assert torch.equal(one[order], other)


class EverySecond:
    """Plays a selection that finds these the hardest."""

    def hardest(self, images: Tensor, _truth: Tensor, **_: object) -> Tensor:
        """Places in the batch."""
        return torch.arange(1, len(images), 2)


def test_images_that_are_chosen_keep_their_labels(root: Path):
    """Else each is learned as another one."""
    truths: list[list[int]] = []
    plain = build_objective(Task.MULTICLASS, labels=10)

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        truths.append(truth.tolist())
        return plain.loss(logits, truth)

    config = config_of(root, "augment={}")
    steps = Steps(config, replace(plain, loss=loss), samples=10)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    sgd = (OptimizerConfig(kind="sgd", learning_rate=0.1),)
    learner = Learner(
        network, Optimizers(network, sgd, ScheduleConfig()), EverySecond()
    )
    labels = torch.arange(10)
    pixels = torch.zeros(10, 28, 28, 1, dtype=torch.uint8)

    batch = Batch(pixels, labels, labels)
    steps.take(learner, batch, steps.at(0.0), precision="fp32")

    assert truths == [[1, 3, 5, 7, 9]]


def looked_at(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> list[Weights]:
    """The weights of each validation, which has the accuracies that are given."""
    seen: list[Weights] = []
    told = iter(accuracies)

    def scores(_self: Validation, network: nn.Module, _: str) -> dict[str, float]:
        seen.append({name: v.clone() for name, v in network.state_dict().items()})
        return {"accuracy": next(told, 0.0), "loss": 0.5}

    monkeypatch.setattr(Validation, "scores", scores)
    return seen


def same(one: Weights, other: Weights) -> bool:
    """Bit by bit, in what the other has."""
    return all(torch.equal(one[name], value) for name, value in other.items())


def test_what_validation_looks_at_is_the_average(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where it is what will be kept; log and patience would be of other weights."""
    seen = looked_at(monkeypatch, 0.1, 0.2)

    trained(root, "train.epochs=2", "train.ema=0.9", "train.ema_from=0")

    last = read_checkpoint(root / "run" / "last.pt")
    assert same(last["ema"], seen[1])
    assert not same(last["network"], seen[1])


@pytest.mark.parametrize(("keep", "kept"), [("best", 0), ("last", 2)])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_weights_that_are_kept_are_those_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, keep: str, kept: int, ema: float
):
    """The best epoch is the first here; an average changes nothing of that."""
    seen = looked_at(monkeypatch, 0.9, 0.5, 0.4)
    averaged = (f"train.ema={ema}", "train.ema_from=0")

    trained(root, "train.epochs=3", f"train.keep='{keep}'", *averaged)

    final = read_checkpoint(root / "run" / "final.pt")
    assert same(final["network"], seen[kept])


def test_the_last_epoch_is_looked_at_in_any_case(root: Path):
    """With every second one of three: it may be the best, and has a checkpoint."""
    trained(root, "train.epochs=3", "train.validate_every=2")

    rows = read_log(root / "run" / "log.csv")
    assert ["validation_loss" in row for row in rows] == [False, True, True]


def test_seconds_are_those_of_all_starts(root: Path):
    """Else a killed run of some minutes would have them all again."""
    trained(root, "train.epochs=1")
    last = root / "run" / "last.pt"
    write_checkpoint(last, read_checkpoint(last) | {"seconds": 1000.0})

    assert trained(root, "train.epochs=1").outcome.seconds > 1000


def test_labels_are_smoothed_as_the_config_says(root: Path):
    """What is told without a doubt costs the more."""
    sure, truth = torch.tensor([[9.0] + [0.0] * 9]), torch.tensor([0])

    plain, smoothed = (
        prepare(
            config_of(root, f"train.label_smoothing={share}"), root=root, ranks=ALONE
        ).objective.loss(sure, truth)
        for share in (0.0, 0.1)
    )

    assert smoothed > plain + 0.5


def test_a_detector_is_kept_by_its_average_precision():
    """Where yes is rare, always no has a fine accuracy."""
    scores = decisions_right(torch.randn(8, 1), torch.arange(8) % 2)

    assert next(iter(scores)) == "average_precision"


def test_crops_move_down_and_across_apart():
    """Else along one diagonal alone."""
    shifts = _shifts(2000, 4, torch.Generator().manual_seed(0))

    across = torch.corrcoef(shifts.squeeze(-1).float())[0, 1]

    assert abs(across) < 0.1
