"""A step learns from the images that a small network beside it finds hardest."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from classifier.manifest import Task
from tests.training.loop.runs import write_config, write_digits
from training.configs.config import read_config
from training.configs.sections import OptimizerConfig, ScheduleConfig
from training.configs.train_sections import LossConfig
from training.errors import ConfigError, DivergedError
from training.loop.distributed import Ranks
from training.loop.loop import Room, fit
from training.loop.runs import prepare
from training.loop.selection import Selection
from training.loop.start import open_selection, work_of
from training.objectives.objective import build_objective
from training.optimizers.optimizers import Optimizers

RANKS = Ranks(0, 1, torch.device("cpu"))
PROXY = "selection.proxy='lenet5'"
SGD = OptimizerConfig(kind="sgd", learning_rate=0.1, momentum=0.0)


@pytest.fixture
def root(tmp_path):
    """Digits and a config."""
    write_config(tmp_path)
    return write_digits(tmp_path)


def selection_by(proxy: nn.Module, *, keep: float = 0.5) -> Selection:
    """Of images of three classes, with plain gradient descent."""
    objective = build_objective(Task.MULTICLASS, labels=3)
    optimizers = Optimizers(proxy, (SGD,), ScheduleConfig(shape="constant"))
    return Selection(proxy, proxy, optimizers, objective, keep=keep)


@pytest.fixture
def proxy():
    """Knows some images and not others."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


@pytest.fixture
def images():
    """float [10, 3, 2, 2]."""
    return torch.randn(10, 3, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def truth():
    """int64 [10]."""
    return torch.arange(10) % 3


@pytest.mark.parametrize(("keep", "count"), [(0.5, 5), (0.31, 3), (0.01, 1)])
def test_those_with_the_highest_loss_are_chosen(proxy, images, truth, keep, count):
    """In the order of the batch, and never none."""
    losses = functional.cross_entropy(proxy(images), truth, reduction="none")

    chosen = selection_by(proxy, keep=keep).hardest(
        images, truth, progress=0.0, precision="fp32"
    )

    assert chosen.tolist() == sorted(losses.argsort()[-count:].tolist())


def test_the_proxy_learns_from_what_it_has_chosen(proxy, images, truth):
    """A step on these alone."""
    by_hand = copy.deepcopy(proxy)

    chosen = selection_by(proxy).hardest(images, truth, progress=0.0, precision="fp32")

    functional.cross_entropy(by_hand(images[chosen]), truth[chosen]).backward()
    for moved, parameter in zip(proxy.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(moved, parameter - 0.1 * parameter.grad)


def test_the_proxy_has_the_rates_of_the_moment(proxy, images, truth):
    """Half of a warm-up is half the rate, of which a search for one takes three."""
    by_hand = copy.deepcopy(proxy)
    warming = ScheduleConfig(shape="constant", warmup=0.5)
    objective = build_objective(Task.MULTICLASS, labels=3)
    optimizers = Optimizers(proxy, (SGD,), warming)
    selection = Selection(proxy, proxy, optimizers, objective, keep=0.5)

    chosen = selection.hardest(
        images, truth, progress=0.25, precision="fp32", multiple=3.0
    )

    functional.cross_entropy(by_hand(images[chosen]), truth[chosen]).backward()
    for moved, parameter in zip(proxy.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(moved, parameter - 0.5 * 3 * 0.1 * parameter.grad)


def test_the_proxy_has_the_longest_gradient_of_the_config(root, proxy, images, truth):
    """As the network: its step is at most the rate times that."""
    plain = ('optimizer=[{kind="sgd", learning_rate=0.1}]', 'schedule.shape="constant"')
    still = ("schedule.warmup=0.0", "train.clip_norm=0.01")
    config = read_config(root / "tiny.toml", (PROXY, *plain, *still))
    before = nn.utils.parameters_to_vector(proxy.parameters()).detach()
    objective = build_objective(Task.MULTICLASS, labels=3)

    selection = open_selection(proxy, config, objective, RANKS)
    selection.hardest(images, truth, progress=0.0, precision="fp32")

    moved = nn.utils.parameters_to_vector(proxy.parameters()).detach() - before
    # Nesterov's: the gradient, and once more its part of the momentum
    assert moved.norm().item() == pytest.approx(0.1 * 1.9 * 0.01, rel=1e-3)


def test_a_proxy_whose_loss_is_no_number_stops_the_run(root):
    """It would choose by place, while the network learns on."""
    config = read_config(root / "tiny.toml", (PROXY, "train.epochs=1"))
    ready = prepare(config, root=root, ranks=RANKS)
    with torch.no_grad():
        ready.proxy.head.bias[0] = torch.nan

    with pytest.raises(DivergedError, match="the loss of the proxy is nan by step"):
        fit(
            ready.network, config, train=ready.batches, validation=None,
            objective=ready.objective, room=Room(root / "run", RANKS),
            proxy=ready.proxy,
        )  # fmt: skip

    assert not (root / "run" / "last.pt").exists()


@pytest.mark.parametrize(
    ("task", "config", "labels"),
    [
        (Task.MULTICLASS, LossConfig(), torch.arange(6) % 3),
        (Task.MULTILABEL, LossConfig(), torch.arange(18).view(6, 3) % 2),
        (Task.MULTILABEL, LossConfig(kind="asymmetric"), torch.ones(6, 3)),
        (Task.MULTICLASS, LossConfig(logit_adjustment=1.0), torch.arange(6) % 3),
    ],
    ids=["softmax", "sigmoid", "asymmetric", "adjusted"],
)
@pytest.mark.parametrize("mixing", [False, True])
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_images(
    task, config, labels, mixing
):
    """Whatever the task: each image is judged by what it would cost."""
    objective = build_objective(
        task,
        labels=3,
        label_smoothing=0.1,
        config=config,
        frequency=torch.tensor([0.2, 0.3, 0.5]),
    )
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    truth = objective.truth(labels, mixing=mixing)

    losses = objective.losses(logits, truth)

    assert losses.shape == (6,)
    assert losses.mean().item() == pytest.approx(objective.loss(logits, truth).item())
    assert losses[3].item() == pytest.approx(
        objective.loss(logits[3:4], truth[3:4]).item()
    )


def test_a_step_looks_at_more_images_than_it_learns_from(root):
    """With half of them kept, an epoch has half the steps of as many images."""
    config = read_config(root / "tiny.toml", (PROXY, "train.epochs=1"))
    ready = prepare(config, root=root, ranks=RANKS)
    seen = []
    ready.network.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if module.training else None
    )

    outcome = fit(
        ready.network, config, train=ready.batches, validation=None,
        objective=ready.objective, room=Room(root / "run", RANKS), proxy=ready.proxy,
    )  # fmt: skip

    assert outcome.plan.steps_per_epoch == 7  # of 300 images, 40 at a time
    assert seen == [20] * 7
    assert work_of(config, ready.batches, None, world=1).kept == 0.5


def test_a_training_without_a_proxy_says_so(root):
    """It would learn from all images, twice as many a step as was asked for."""
    config = read_config(root / "tiny.toml", (PROXY,))
    ready = prepare(config, root=root, ranks=RANKS)

    with pytest.raises(ConfigError, match="no proxy"):
        fit(
            ready.network, config, train=ready.batches, validation=None,
            objective=ready.objective, room=Room(root / "run", RANKS),
        )  # fmt: skip


def test_optimizers_that_do_not_fit_the_proxy_are_told_with_its_name(root, proxy):
    """They may fit the network, and nobody would look for another one."""
    config = read_config(root / "tiny.toml", (PROXY,))
    objective = build_objective(Task.MULTICLASS, labels=3)

    with pytest.raises(ConfigError, match=r"the proxy lenet5 .* 'filters' takes none"):
        open_selection(proxy, config, objective, RANKS)


@pytest.mark.parametrize("keep", ["0.0", "1.0", "-1"])
def test_a_part_is_kept(root, keep):
    """All of the images would be no selection, and none no training."""
    with pytest.raises(ConfigError, match=r"selection\.keep"):
        read_config(root / "tiny.toml", (PROXY, f"selection.keep={keep}"))


def test_pretrained_weights_are_not_for_a_selection(root):
    """Both were asked for, and one would be left out silently."""
    text = (root / "tiny.toml").read_text()
    head = text[: text.index("[[optimizer]]")].replace("gray", "rgb")
    kept = [line for line in head.splitlines() if not line.startswith(("mean", "std"))]
    write_config(root, "\n".join([*kept, "[transfer]", "[train]", "epochs = 1"]))

    with pytest.raises(ConfigError, match=r"\[selection\] is for"):
        read_config(root / "tiny.toml", (PROXY,))
