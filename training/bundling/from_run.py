"""run folder → **bundle**: the last of the six steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from classifier.manifest import Provenance, Task
from training.bundling.bundling import build_bundle
from training.bundling.draft import Recipe, check_name
from training.bundling.figures import Bundled
from training.bundling.labels import bundle_labels
from training.configs.config import Config, parse_config
from training.configs.task_sections import BundleConfig
from training.data import Splits
from training.data.dataset import first_of
from training.data.relabel import as_written
from training.errors import CheckpointError, ConfigError
from training.files import ours, try_folder
from training.graphs.detector import SomeAgainstRest
from training.graphs.export import export_network
from training.graphs.views import Viewed
from training.loop.checkpoint import load_network, read_finished
from training.loop.log import listed
from training.loop.origin import origin_of
from training.loop.runs import FINAL, open_splits
from training.loop.suited import check_watched
from training.networks import Network, build
from training.provenance import circumstances, command_line, installed
from training.transfer.transfer import RECORD


def export_run(
    run: Path,
    *,
    data: Path,
    models: Path,
    name: str | None = None,
    rules: BundleConfig | None = None,
    positive: tuple[str, ...] = (),
) -> Bundled:
    """Write a bundle of what `linnaeus train` left in `run`.

    Args:
        run: holds `final.pt`.
        data: the folder of data sets that the config's paths are below.
        models: where the bundle goes.
        name: of the bundle; None takes the config's.
        rules: in place of the config's [bundle].
        positive: make a detector of these labels of a multi-class network.

    Raises:
        CheckpointError: the run is not finished, its file is damaged, or the data is
            not what it was trained on.
        ConfigError: `name` is no name for a bundle, or missing beside `positive`; one
            of these is no label, or the task not multi-class.
        DataError: all labels are positive, or validation has no image of yes or of no.
        DiskError: `models` cannot be written.
    """
    if name is not None:
        check_name(name)
    elif positive:
        raise ConfigError(
            f"{', '.join(map(repr, positive))} is another question than that of the "
            "run; give it a name of its own with --name, such as is-it-a-dog"
        )
    saved = read_finished(run / FINAL)
    config = config_of(saved, run / FINAL)
    try_folder(models / (name or config.name))
    splits = open_splits(config, data, run.parent)
    origin_of(splits).check(saved, run / FINAL)
    network: nn.Module = load_run(config, saved, splits)
    rules, now = rules or config.bundle, circumstances(command_line())
    if rules.views > 1:
        network = Viewed(network, rules.views)
    if positive:
        network, config, splits = ask(network, config, splits, positive)
    recipe = Recipe(
        name=name or config.name,
        task=config.task,
        labels=bundle_labels(splits.dataset, config.task),
        preprocess=config.data.spec,
        config=rules,
        provenance=provenance(saved, splits, rules, now),
        remarks=(*remarks(run, splits), exported_by(now)),
    )
    graph = export_network(network, config.data, classes=logits_of(config, splits))
    return build_bundle(graph, recipe, splits, models)


def config_of(saved: dict[str, Any], where: Path) -> Config:
    """The config of a run; before `bundle.views` there was `bundle.mirror`.

    Raises:
        ConfigError: this version cannot read it.
    """
    bundle = dict(saved["config"].get("bundle", {}))
    if "mirror" in bundle:
        bundle["views"] = 2 if bundle.pop("mirror") else 1
    return parse_config(saved["config"] | {"bundle": bundle}, str(where))


def logits_of(config: Config, splits: Splits) -> int:
    """How many a network of this task has."""
    return config.task.logits(len(splits.dataset.label_names))


def load_run(config: Config, saved: dict[str, Any], splits: Splits) -> Network:
    """The trained network of a run, on the CPU."""
    network = build(
        config.network.name,
        classes=logits_of(config, splits),
        in_channels=config.data.spec.channels,
        image_size=(config.data.height, config.data.width),
        **config.network.options,
    )
    load_network(network, saved["network"], FINAL)
    return network.eval()


def ask(
    network: nn.Module, config: Config, splits: Splits, positive: tuple[str, ...]
) -> tuple[nn.Module, Config, Splits]:
    """Network, config and splits of "is it one of `positive`?".

    Raises:
        ConfigError: no such label, or not a multi-class run.
        DataError: all labels are positive, or validation has no image of yes or of no.
    """
    names = splits.dataset.label_names
    positive = as_written(positive, names)
    unknown = [name for name in positive if name not in names]
    if config.task.activation != "softmax" or unknown:
        wished = ", ".join(map(repr, unknown or positive))
        raise ConfigError(
            f"cannot ask for {wished} of a {config.task} run with the labels "
            f"{first_of(names)}"
        )
    # The splits of the run, not new ones: a cut by yes and no would put images that the
    # network has learned into validation.
    splits = splits.asked(positive)
    check_watched(Task.BINARY, splits)
    asked = config.model_copy(
        update={
            "task": Task.BINARY,
            "data": config.data.model_copy(update={"positive": positive}),
        }
    )
    some = [names.index(name) for name in positive]
    return SomeAgainstRest(network, some, len(names)), asked, splits


def provenance(
    saved: dict[str, Any], splits: Splits, rules: BundleConfig, now: dict[str, Any]
) -> Provenance:
    """Enough to make the bundle again; older runs did not keep all of it.

    Commit, versions and hardware are those of the training, which may have been another
    day and elsewhere: the weights come from it. Those of the export, `now`, are on the
    card.
    """
    trained = saved.get("command", "linnaeus train")
    return Provenance(
        command=f"{trained}; {now['command']}",
        config=saved.get("config_file"),
        commit=saved.get("commit"),
        data_sha256={
            "train": splits.train.sha256(),
            "validation": splits.validation.sha256(),
        },
        versions=installed(saved) if "versions" in saved else {},
        hardware=trained_on(saved, exporter=now["machine"]),
        seconds=float(saved["seconds"]),
        created=now["measured"],
        license=rules.license,
        source=rules.source,
    )


def trained_on(saved: dict[str, Any], *, exporter: str) -> str:
    """The GPUs and the machine of the training, which `exporter` need not be."""
    if "machine" not in saved:
        return f"not recorded (exported on {exporter})"
    gpu, machine = saved["gpu"], saved["machine"]
    return machine if gpu is None else f"{gpu}, {machine}"


def exported_by(now: dict[str, Any]) -> str:
    """A line for the card: what made graphs, rules and figures of the weights."""
    versions = ", ".join(f"{name} {of}" for name, of in now["versions"].items())
    return f"Exported by commit {now['commit'] or 'none'} with {versions}"


def remarks(run: Path, splits: Splits) -> tuple[str, ...]:
    """Lines for the card: what validation was, and which stage of a transfer won.

    Raises CheckpointError where the record of a transfer is damaged.
    """
    lines = []
    if splits.validation.scenes is not None:
        count = len(np.unique(splits.validation.scenes))
        lines.append(
            f"Validation: {len(splits.validation)} images of {count} scenes, none of "
            "which is in train"
        )
    path = run / RECORD
    if not path.is_file():
        return tuple(lines)
    with ours(path, CheckpointError):
        return (*lines, *stages(json.loads(path.read_text(encoding="utf-8"))))


def stages(record: dict[str, Any]) -> list[str]:
    """Lines for the card: both stages of a transfer, and the one that won."""
    lines = [f"Linear probe on validation: {listed(record['probe'])}"]
    if record["finetuned"] is not None:
        lines.append(f"Fine-tuned on validation: {listed(record['finetuned'])}")
    if record.get("features_cached"):  # records of before do not say
        lines.append(
            "Features came from the cache: the seconds of training are without theirs"
        )
    return [*lines, f"Kept: {record['kept']}"]
