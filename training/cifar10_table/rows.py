"""the table's networks → **configs**: what each is trained with, and how long.

The goals are the figures of kuangliu/pytorch-cifar, which keeps the best epoch on the
test split; ours are of the last epoch. Recipe for all: SGD with Nesterov momentum,
triangular rate, label smoothing, reflected crops, alternating flip, cutout; the rates
are for the mean loss of 512 images (Goyal et al., arXiv:1706.02677, for their scale).
Deep networks of few epochs have their filters in the hands of Muon, with the rate and
momentum of `training/configs/cifar10_94.toml`; why is in `docs/training.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.configs.config import Config, parse_config

BATCH_SIZE = 512
MUON_RATE, MUON_MOMENTUM = 0.12, 0.6
# Without it the sum over sixteen blocks and more is so large at first that the head's
# first steps throw the loss from 2.3 to 20.
ZERO_INIT = {"zero_init_residual": True}
LONG = 60  # epochs from which more cutout pays


@dataclass(frozen=True)
class Row:
    """One network of the table."""

    label: str
    network: str
    goal: float  # percent, to be exceeded
    epochs: int  # wanted; shared out by the minutes there are
    rate: float  # peak
    warmup: float = 0.2  # part of the training
    clip_norm: float | None = None
    muon: bool = False  # for the filters
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network


ROWS = (
    Row("VGG16", "vgg16_3_bn_cifar", 92.64, 30, 0.15, clip_norm=5.0, muon=True),
    Row("ResNet18", "resnet18_cifar", 93.02, 30, 0.2),
    Row("PreActResNet18", "preact_resnet18_cifar", 95.11, 80, 0.2),
    Row("ResNet50", "resnet50_cifar", 93.62, 24, 0.2, muon=True, options=ZERO_INIT),
    Row("ResNet101", "resnet101_cifar", 93.75, 14, 0.15, muon=True, options=ZERO_INIT),
    Row(
        "ResNeXt29-32x4d",
        "resnext29_32x4d_cifar",
        94.73,
        45,
        0.2,
        muon=True,
        options=ZERO_INIT,
    ),
    Row(
        "ResNeXt29-2x64d",
        "resnext29_2x64d_cifar",
        94.82,
        45,
        0.2,
        muon=True,
        options=ZERO_INIT,
    ),
    Row("DenseNet121", "densenet121_cifar", 95.04, 20, 0.2, muon=True),
    Row("DPN92", "dpn92_cifar", 95.16, 22, 0.15, clip_norm=5.0, muon=True),
)


def config_of(
    row: Row,
    *,
    epochs: int,
    batch_size: int,
    precision: str = "fp32",
    compiled: bool = False,
) -> Config:
    """The whole run of one network, as a config file would say it."""
    table: dict[str, Any] = {
        "name": row.network.replace("_", "-"),
        "task": "multiclass",
        "data": {
            "path": "cifar-10",
            "height": 32,
            "width": 32,
            "mean": (0.4914, 0.4822, 0.4465),
            "std": (0.2470, 0.2435, 0.2616),  # over all pixels of the train split
            "validation": 0,  # nothing is chosen by it
        },
        "network": {"name": row.network, "options": dict(row.options)},
        "optimizer": optimizers_of(row, scale=batch_size / BATCH_SIZE),
        "schedule": {"shape": "linear", "warmup": row.warmup, "start": 0.2},
        "augment": {
            "flip": "alternating",
            "crop": 4,
            "cutout": 12 if epochs >= LONG else 8,
        },
        "train": {
            "epochs": epochs,
            "batch_size": batch_size,
            "label_smoothing": 0.1,
            "clip_norm": row.clip_norm,
            "precision": precision,
            "compile": compiled,
            "validate_every": 10,  # there is none, but a checkpoint so often
        },
    }
    return parse_config(table, f"row {row.label}")


def optimizers_of(row: Row, *, scale: float) -> tuple[dict[str, Any], ...]:
    """What a row is trained with, its rates times `scale`."""
    sgd = {
        "kind": "sgd",
        "learning_rate": row.rate * scale,
        "momentum": 0.9,
        "weight_decay": 5e-4,
    }
    if not row.muon:
        return (sgd,)
    muon = {
        "parameters": "filters",
        "kind": "muon",
        "learning_rate": MUON_RATE * scale,
        "momentum": MUON_MOMENTUM,
    }
    return (muon, sgd)


def share_out(
    seconds: float, costs: dict[str, float], rows: tuple[Row, ...] = ROWS
) -> dict[str, int]:
    """Epochs for the networks in `costs` (seconds an epoch) so that `seconds` suffice.

    All get the same part of the epochs wanted for them, at most twice as many, at least
    one. Rounded down, so that the sum stays within the time unless it is hopeless.
    """
    due = [row for row in rows if row.label in costs]
    wanted = sum(row.epochs * costs[row.label] for row in due)
    part = min(seconds / wanted, 2.0) if wanted else 0.0
    return {row.label: max(int(row.epochs * part), 1) for row in due}


def at_pace(costs: dict[str, float], done: str, seconds: float) -> dict[str, float]:
    """`costs` of the networks after `done`, whose epochs took so many `seconds`.

    What was timed in a few steps at the start, beside other work perhaps, is too high
    or too low for all of them alike.
    """
    pace = seconds / costs[done]
    return {label: cost * pace for label, cost in costs.items() if label != done}
