"""config + data → **run**: everything from a file name to trained weights in a folder.

The composition root of `linnaeus train`, where datasets, batches, network and objective
are built together. `cifar10_table` has its own.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from classifier.manifest import Task
from training.configs.config import Config
from training.configs.sections import NetworkConfig
from training.data import Splits, cut, load_dataset
from training.data.batches import Batches, Order, open_batches
from training.data.negatives import add_negatives
from training.data.relabel import as_binary
from training.errors import ConfigError
from training.files import discard_partials, make_folder
from training.loop import suited
from training.loop.arithmetic import keep_memory, normalize, to_images
from training.loop.checkpoint import read_finished, read_if_whole, write_checkpoint
from training.loop.distributed import Ranks
from training.loop.lock import alone_in
from training.loop.log import listed
from training.loop.loop import Outcome, Room, fit
from training.loop.origin import Origin, origin_of
from training.loop.start import CHECKPOINT
from training.loop.state import check_same_run
from training.loop.validation import Validation
from training.networks import Network, build, check_growth
from training.networks.fastcifar import FastCifar
from training.objectives.imbalance import frequencies
from training.objectives.objective import Objective, build_objective
from training.provenance import circumstances, command_line
from training.transfer.alike import with_scenes
from training.transfer.transfer import RECORD, transfer

LOGGER = logging.getLogger(__name__)

RUNS = Path("runs")
FINAL = "final.pt"
LEFT = (RECORD, "log.csv", "curves.png")  # by a run, of what it did
WRITTEN = (CHECKPOINT, FINAL, RECORD, "log.csv")  # while no other training may
FEATURES = "features"  # beside the runs: cached, and shared by them
WHITENING_IMAGES = 5000


@dataclass(frozen=True)
class Trained:
    """A finished run: what `final.pt` holds, and the data it came from."""

    config: Config
    network: Network
    splits: Splits
    origin: Origin  # of the splits, before the first step
    objective: Objective
    outcome: Outcome


def open_splits(config: Config, root: Path, runs: Path = RUNS) -> Splits:
    """The four splits that the config describes.

    `root` is the folder of data sets, `runs` that of the runs, which share features.

    Raises:
        ConfigError: the data is not of the task, or has no validation images where the
            training chooses by them.
        DataError: it cannot be read or cut, no bundle can hold its labels, or
            validation could not tell one network from another.
    """
    suited.check_there(config, root)
    multi_label = config.task is Task.MULTILABEL
    dataset = load_dataset(root / config.data.path, multi_label=multi_label)
    if config.data.positive:
        dataset = as_binary(dataset, config.data.positive)
    suited.check_labels(dataset)
    suited.check_task(config, dataset)  # negatives would hide what it has
    if config.negatives:
        dataset = add_negatives(dataset, config.negatives, root)
    dataset = with_scenes(dataset, config.data, runs / FEATURES)
    splits = cut(
        dataset,
        validation=config.data.validation,
        test=config.data.test,
        seed=config.seed,
    )
    suited.check_watched(config.task, splits)
    suited.check_chosen(config, splits)
    return splits


@dataclass(frozen=True)
class Prepared:
    """Everything that a training starts from."""

    splits: Splits
    objective: Objective
    batches: Batches
    network: Network
    proxy: Network | None  # what selects the images of a step, where one does


def prepare(config: Config, *, root: Path, ranks: Ranks, runs: Path = RUNS) -> Prepared:
    """Open the data and build fresh networks."""
    return prepare_for(config, open_splits(config, root, runs), ranks)


def prepare_for(config: Config, splits: Splits, ranks: Ranks) -> Prepared:
    """Batches of the data, and fresh networks."""
    objective = open_objective(config, splits)
    order = Order(
        len(splits.train),
        config.train.batch_size,
        config.seed,
        ranks.rank,
        ranks.world,
        config.kept,
    )
    batches = open_batches(
        splits.train,
        config.data.spec,
        order,
        ranks.device,
        resident_mib=config.data.resident_mib,
    )
    network = build_network(config, splits, objective)
    proxy = None
    if config.selection is not None:
        named = NetworkConfig(name=config.selection.proxy)
        chosen_by = config.model_copy(update={"network": named})
        proxy = build_network(chosen_by, splits, objective)
    return Prepared(splits, objective, batches, network, proxy)


def train(  # noqa: PLR0913 - a run, each argument a noun of its own
    config: Config,
    *,
    root: Path,
    folder: Path,
    ranks: Ranks,
    live: TextIO | None,
    file: Path | None = None,
    to_test: bool = False,
) -> Trained:
    """Train from a config, or go on where the run in `folder` was interrupted.

    Args:
        file: what the config was read from, to be told to whoever gets the network.
        to_test: a test split is needed afterwards, so there must be one.

    Raises:
        ConfigError: a transfer in several processes, what the data does not fit, or
            no test split where one is needed.
        CheckpointError: `folder` is that of another run, or another training is
            writing there.
    """
    if config.transfer is not None and ranks.world > 1:
        raise ConfigError(
            f"[transfer] is for one process and {ranks.world} were started; its probe "
            "and its choice are not shared out: start `linnaeus train` without torchrun"
        )
    keep_memory()
    make_folder(folder)
    with alone_in(folder, ranks) as certain:
        if certain:
            for name in WRITTEN:
                discard_partials(folder / name)
        room = Room(folder, ranks, live)
        return _train_in(room, config, root=root, file=file, to_test=to_test)


def _train_in(
    room: Room, config: Config, *, root: Path, file: Path | None, to_test: bool
) -> Trained:
    folder, ranks = room.folder, room.ranks
    splits = open_splits(config, root, folder.parent)
    if to_test and not splits.has_test:
        raise ConfigError(
            f"{splits.dataset.name} has no test split to open at the end; provide one, "
            "or cut it from train with `test = 0.1` in [data]"
        )
    LOGGER.info("images: %s", listed(splits.sizes))
    origin = origin_of(splits)
    final, goes_on = folder / FINAL, (folder / CHECKPOINT).is_file()
    if not goes_on:
        if final.is_file():
            check_same_run(read_finished(final), final, config, origin)
        if ranks.first:
            for name in LEFT:
                (folder / name).unlink(missing_ok=True)
    train_as = _train_anew if config.transfer is None else _train_by_transfer
    trained = train_as(config, splits, origin, room)
    if ranks.first:
        made = circumstances(command_line(), gpu=ranks.gpu) | {
            "config_file": None if file is None else str(file)
        }
        nothing_new = goes_on and not trained.outcome.taken  # it had finished
        if nothing_new and (before := read_if_whole(final)) is not None:
            made = {key: before[key] for key in made if key in before}
        write_final(trained, made, final)
    return trained


def _train_anew(config: Config, splits: Splits, origin: Origin, room: Room) -> Trained:
    ready = prepare_for(config, splits, room.ranks)
    split = ready.splits.validation
    size = config.train.batch_size // room.ranks.world
    watched = None
    if len(split):
        watched = Validation(split, config.data, ready.objective, batch_size=size)
    outcome = fit(
        ready.network,
        config,
        train=ready.batches,
        validation=watched,
        objective=ready.objective,
        room=room,
        origin=origin,
        proxy=ready.proxy,
    )
    return Trained(
        config, ready.network, ready.splits, origin, ready.objective, outcome
    )


def _train_by_transfer(
    config: Config, splits: Splits, origin: Origin, room: Room
) -> Trained:
    objective = open_objective(config, splits)
    network, outcome = transfer(
        config,
        splits,
        objective,
        room=room,
        cache=room.folder.parent / FEATURES,
        origin=origin,
    )
    return Trained(config, network, splits, origin, objective, outcome)


def open_objective(config: Config, splits: Splits) -> Objective:
    """The objective of the config's task, for the labels of the data."""
    labels = len(splits.dataset.label_names)
    return build_objective(
        config.task,
        labels=labels,
        label_smoothing=config.train.label_smoothing,
        config=config.loss,
        frequency=frequencies(splits.train.labels, config.task, count=labels),
    )


def build_network(config: Config, splits: Splits, objective: Objective) -> Network:
    """A fresh network, seeded; its first layer whitened if it has one to whiten."""
    sides = [side for _, side in config.augment.sizes]
    check_growth(config.network.name, config.data.height, sides)
    torch.manual_seed(config.seed)
    network = build(
        config.network.name,
        classes=objective.logits,
        in_channels=config.data.spec.channels,
        image_size=(config.data.height, config.data.width),
        **config.network.options,
    )
    if objective.first_bias is not None and network.head.bias is not None:
        with torch.no_grad():
            network.head.bias.copy_(objective.first_bias)
    if isinstance(network, FastCifar):
        total = len(splits.train)  # of folders, the first images are all of one label
        some = np.linspace(0, total - 1, min(WHITENING_IMAGES, total), dtype=np.int64)
        pixels = splits.train.select(some).pixels(config.data.spec)
        images = to_images(torch.tensor(pixels))
        network.whiten(normalize(images, config.data.mean, config.data.std))
    return network


def write_final(trained: Trained, made: dict[str, Any], path: Path) -> None:
    """Weights, config, origin and circumstances: what export starts from."""
    dataset = trained.splits.dataset
    write_checkpoint(
        path,
        {
            **made,
            "config": trained.config.model_dump(mode="json"),
            "network": trained.network.state_dict(),
            **trained.origin.state(),
            "groups": list(dataset.groups),
            "sizes": trained.splits.sizes,
            "seconds": trained.outcome.seconds,
            "epochs": trained.outcome.epochs,
            "precision": trained.outcome.plan.precision,
            "scores": trained.outcome.scores,
        },
    )
