"""Probe and fine-tuning: each gets what the config says, and the better one is left."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classifier.manifest import Task
from training.configs.config import read_config
from training.configs.task_sections import TransferConfig
from training.data import Splits, cut, load_dataset
from training.loop.budget import Plan
from training.loop.distributed import Ranks
from training.loop.loop import Outcome, Room
from training.networks import build
from training.objectives.objective import build_objective
from training.transfer import transfer as module

ALONE = Ranks(0, 1, torch.device("cpu"))
OBJECTIVE = build_objective(Task.MULTICLASS, labels=3)


@pytest.fixture
def splits(color_folder: Path) -> Splits:
    """Images of three colors."""
    return cut(load_dataset(color_folder / "colors"), validation=18)


@pytest.mark.parametrize(("accuracy", "kept"), [(0.0, "probe"), (1.1, "finetuned")])
def test_the_better_stage_is_what_is_left(
    splits: Splits,
    write_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accuracy: float,
    kept: str,
):
    """Its weights and its figures; and fine-tuning begins with the probe's head."""
    config = read_config(write_config("colors", "multiclass", "colors"))
    config = config.model_copy(update={"transfer": TransferConfig(crops=0)})
    began, probes = [], []

    def spoil(network: nn.Module, *_: object) -> Outcome:
        began.append(network.get_parameter("fc3.weight").detach().clone())
        with torch.no_grad():
            for weight in network.parameters():
                weight.zero_()
        scores = {"accuracy": accuracy, "loss": 9.0}
        return Outcome(Plan(1, 1, "fp32", {}), 1, 1, 1.0, scores)

    def probed(*given: Any) -> Any:
        probes.append(run_probe(*given))
        return probes[-1]

    run_probe = module.run_probe
    lenet = build("lenet5", classes=3, image_size=32)
    monkeypatch.setattr(module, "load_backbone", lambda *_: lenet)
    monkeypatch.setattr(module, "finetune", spoil)
    monkeypatch.setattr(module, "run_probe", probed)

    network, outcome = module.transfer(
        config, splits, OBJECTIVE, room=Room(tmp_path, ALONE), cache=tmp_path / "f",
        origin=None,
    )  # fmt: skip

    assert torch.equal(began[0], probes[0].probe.weight)
    assert json.loads((tmp_path / "transfer.json").read_text())["kept"] == kept
    reached = {"probe": probes[0].scores["accuracy"], "finetuned": accuracy}
    assert outcome.scores["accuracy"] == reached[kept]
    assert bool(network.head.weight.any()) == (kept == "probe")


class AskedError(Exception):
    """Ends what need not go on."""


def test_the_probe_is_what_the_config_asks_for(
    splits: Splits,
    write_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Its views, its kind, its strengths; and it is chosen apart from its scenes."""
    wanted = TransferConfig(
        crops=3, smallest_crop=0.4, probe="discriminant", probe_shrinkages=(0.2, 0.7)
    )
    config = read_config(write_config("colors", "multiclass", "colors"))
    config = config.model_copy(update={"transfer": wanted})
    scenes = np.arange(len(splits.train))
    splits.train = replace(splits.train, scenes=scenes)
    asked: dict[str, Any] = {}

    def fit(views: np.ndarray, *_: object, **given: Any) -> None:
        asked.update(given, views=len(views))
        raise AskedError

    monkeypatch.setattr(module, "fit_probe", fit)
    network = build("lenet5", classes=3, image_size=32)
    with pytest.raises(AskedError):
        module.run_probe(network, config, splits, OBJECTIVE, tmp_path / "f", None)

    assert (asked["views"], asked["kind"]) == (5, "discriminant")
    assert asked["strengths"] == (0.2, 0.7)
    assert asked["scenes"] is scenes


def test_head_and_body_have_rates_of_their_own():
    """And all that learns has the decay."""
    config = TransferConfig(
        frozen_groups=1, head_rate=0.5, body_rate=0.1, weight_decay=0.03
    )

    head, _, *body = module.layer_rates(build("resnet18_cifar", classes=3), config)

    assert head.learning_rate == 0.5
    assert max(part.learning_rate for part in body) == 0.1
    assert {part.weight_decay for part in (head, *body)} == {0.03}
