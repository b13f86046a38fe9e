"""pretrained network + few images → **your classifier**: probe, fine-tune, choose.

First a linear probe on cached features, in seconds. Then fine-tuning from the probe's
head with frozen batch-norm statistics and rates that fall towards the first layers
(Kumar et al., arXiv:2202.10054; Kornblith et al., arXiv:1805.08974). The one that is
better on validation is kept, and both are reported.
"""

import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

import torch
from torch import nn

from training.configs.config import Config
from training.configs.sections import OptimizerConfig
from training.configs.task_sections import TransferConfig
from training.data import Splits
from training.data.batches import Order, open_batches
from training.errors import ConfigError
from training.files import write_whole
from training.loop.arithmetic import normalize, to_images
from training.loop.budget import Plan
from training.loop.loop import Outcome, Room, fit
from training.loop.origin import Origin
from training.loop.validation import Validation
from training.networks import Network
from training.objectives.objective import Objective, Scores, better
from training.pretrained.published import load_backbone
from training.transfer.features import FeatureCache, embedding_graph
from training.transfer.frozen_norm import folded_norms
from training.transfer.probe import Probe, fit_probe

RECORD = "transfer.json"


@dataclass(frozen=True)
class Record:
    """How the two stages compare; `kept` is "probe" or "finetuned"."""

    probe: Scores  # on validation
    probe_folds: Scores  # on train images held out in turn
    probe_strength: float  # weight decay or shrinkage, the chosen one
    probe_seconds: float  # of features and probe
    features_cached: bool  # some were there already, and their seconds are not counted
    finetuned: Scores | None  # on validation; None where it was not wanted
    kept: str


@dataclass(frozen=True)
class Probed:
    """The first stage: a head for the frozen network, and what it took."""

    probe: Probe
    scores: Scores  # on validation
    seconds: float
    cached: bool  # see `Record.features_cached`


def transfer(
    config: Config,
    splits: Splits,
    objective: Objective,
    *,
    room: Room,
    cache: Path,
    origin: Origin,
) -> tuple[Network, Outcome]:
    """Both stages; killed in between it goes on from cached features and checkpoint.

    `cache` is a folder for features; `origin` is that of the splits. Leaves
    `transfer.json` in the run's folder.
    """
    wanted = config.transfer or TransferConfig()
    torch.manual_seed(config.seed)
    network = load_backbone(config.network.name, config.network.options)
    stage = run_probe(network, config, splits, objective, cache, room.live)
    stage.probe.into(network.replace_head(objective.logits))
    record = record_of_probe(stage)
    outcome = Outcome(Plan(0, 1, "fp32", {}), 0, 0, stage.seconds, stage.scores)
    if wanted.finetune:
        write_record(record, room.folder)  # the probe alone, while the rest runs
        probed = {name: value.clone() for name, value in network.state_dict().items()}
        outcome = finetune(network, config, splits, objective, room, origin)
        kept = "finetuned" if better(outcome.scores, stage.scores) else "probe"
        record = replace(record, finetuned=outcome.scores, kept=kept)
        outcome = replace(outcome, seconds=stage.seconds + outcome.seconds)
        if kept == "probe":
            network.load_state_dict(probed)
            outcome = replace(outcome, scores=stage.scores)
    write_record(record, room.folder)
    return network, outcome


def record_of_probe(stage: Probed) -> Record:
    """While there is nothing else, the probe is what is kept."""
    return Record(
        probe=stage.scores,
        probe_folds=stage.probe.cross_validation,
        probe_strength=stage.probe.strength,
        probe_seconds=round(stage.seconds, 1),
        features_cached=stage.cached,
        finetuned=None,
        kept="probe",
    )


def write_record(record: Record, folder: Path) -> None:
    """For the report and the card."""
    write_whole(folder / RECORD, json.dumps(asdict(record), indent=1) + "\n")


def run_probe(
    network: Network,
    config: Config,
    splits: Splits,
    objective: Objective,
    cache: Path,
    live: TextIO | None,
) -> Probed:
    """The probe, its scores on validation and its time."""
    wanted = config.transfer or TransferConfig()
    started_s = time.perf_counter()
    graph = embedding_graph(network, config.data)
    store = FeatureCache(graph, config.data, cache, live=live)
    features = store.features(
        splits.train,
        crops=wanted.crops,
        smallest=wanted.smallest_crop,
        seed=config.seed,
    )
    probe = fit_probe(
        features,
        splits.train.labels,
        objective,
        kind=wanted.probe,
        strengths=wanted.probe_strengths,
        seed=config.seed,
        scenes=splits.train.scenes,
    )
    seen = store.features(
        splits.validation, crops=-1, smallest=wanted.smallest_crop, seed=config.seed
    )
    logits, labels = probe.logits(seen[0]), torch.tensor(splits.validation.labels)
    scores = objective.watched(logits, labels)
    return Probed(probe, scores, time.perf_counter() - started_s, store.reused)


def finetune(
    network: Network,
    config: Config,
    splits: Splits,
    objective: Objective,
    room: Room,
    origin: Origin,
) -> Outcome:
    """Train all but the first groups, with batch norms folded into convolutions."""
    order = Order(len(splits.train), config.train.batch_size, config.seed)
    batches = open_batches(
        splits.train,
        config.data.spec,
        order,
        room.ranks.device,
        resident_mib=config.data.resident_mib,
    )
    some = splits.validation.select(torch.arange(2).numpy() % len(splits.validation))
    example = to_images(torch.tensor(some.pixels(config.data.spec)))
    example = normalize(example, config.data.mean, config.data.std)
    with folded_norms(network, example):
        rates = layer_rates(network, config.transfer or TransferConfig())
        tuned = config.model_copy(update={"optimizer": rates})
        return fit(
            network,
            tuned,
            train=batches,
            validation=Validation(
                splits.validation,
                config.data,
                objective,
                batch_size=config.train.batch_size,
            ),
            objective=objective,
            room=room,
            origin=origin,
        )


def layer_groups(network: Network) -> list[str]:
    """Names of the modules that learn at one rate, from the first to the head.

    The children of the network, and in place of a Sequential its children.
    """
    names = []
    for name, child in network.named_children():
        if not any(True for _ in child.parameters()):
            continue  # activations, dropout, norms that were folded away
        parts = child if isinstance(child, nn.Sequential) else None
        names += [f"{name}.{n}" for n, _ in parts.named_children()] if parts else [name]
    return names


def layer_rates(
    network: Network, config: TransferConfig
) -> tuple[OptimizerConfig, ...]:
    """An AdamW a layer group: slower towards the first, the first not at all.

    Raises:
        ConfigError: nothing would learn.
    """
    groups = layer_groups(network)
    body = [name for name in groups if name != network.head_name]
    if config.frozen_groups > len(body):
        raise ConfigError(
            f"transfer.frozen_groups is {config.frozen_groups}; "
            f"the network has {len(body)} groups before its head"
        )
    head = OptimizerConfig(
        parameters=_below(network.head_name),
        kind="adamw",
        learning_rate=config.head_rate,
        weight_decay=config.weight_decay,
    )
    frozen = body[: config.frozen_groups]
    return (
        head,
        *(OptimizerConfig(parameters=_below(name), kind="frozen") for name in frozen),
        *(
            OptimizerConfig(
                parameters=_below(name),
                kind="adamw",
                learning_rate=config.body_rate * config.layer_decay**depth,
                weight_decay=config.weight_decay,
            )
            for depth, name in enumerate(reversed(body[config.frozen_groups :]))
        ),
    )


def _below(name: str) -> str:
    """A pattern for the parameters of a module."""
    return re.escape(name) + r"\..*"
