"""`linnaeus train`: config + data → **run folder** with weights, log and curves."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from training.loop.log import listed

DATA_HELP = "Folder of the data sets; data.path is below it."


def command(
    config: Annotated[Path, typer.Argument(help="TOML file that describes the run.")],
    data: Annotated[Path, typer.Option(envvar="LINNAEUS_DATA", help=DATA_HELP)] = Path(
        "../shared/data"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/NAME-OF-CONFIG.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time budget; the epochs are planned from it.")
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Only search a learning rate.")
    ] = False,
    test: Annotated[
        bool, typer.Option("--test", help="Open the test split at the end, once.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(help="JSON file for the figures of --test.")
    ] = None,
) -> None:
    """Train a network, or go on with a run that was interrupted."""
    from training.commands.progress import say_steps  # noqa: PLC0415
    from training.configs.config import read_config  # noqa: PLC0415 - torch is slow to load
    from training.errors import ConfigError  # noqa: PLC0415
    from training.files import try_file  # noqa: PLC0415
    from training.loop.distributed import start_ranks  # noqa: PLC0415
    from training.loop.runs import train  # noqa: PLC0415

    changes = [*(change or []), *_length(minutes)]
    if results is not None and not test:
        raise typer.BadParameter("the figures of --results are those of --test")
    if test and find_rate:
        raise typer.BadParameter("--find-rate trains nothing that --test could measure")
    plan = read_config(config, tuple(changes))
    if results is not None:
        try_file(results)
    if minutes is not None and plan.probe_only:
        raise ConfigError(
            "--minutes is for layers that learn, and [transfer] finetune = false fits "
            "the head alone; leave --minutes out, or --set transfer.finetune=true"
        )
    folder = out or Path("runs") / config.stem
    with start_ranks(device) as ranks:
        if ranks.first:
            say_steps()
        if find_rate:
            _find_rate(plan, data, folder, ranks)
            return
        trained = train(
            plan,
            root=data,
            folder=folder,
            ranks=ranks,
            live=sys.stderr,
            file=config,
            to_test=test,
        )
        if ranks.first:
            _finish(trained, folder, results, test=test, gpu=ranks.gpu)


def _length(minutes: float | None) -> list[str]:
    return [] if minutes is None else [f"train.minutes={minutes}"]


def _finish(
    trained: Any, folder: Path, results: Path | None, *, test: bool, gpu: str | None
) -> None:
    from training.loop.curves import draw_curves  # noqa: PLC0415
    from training.loop.runs import FINAL  # noqa: PLC0415

    draw_curves(folder / "log.csv", folder / "curves.png")
    typer.echo(
        f"{describe(trained.outcome, trained.config)}; weights in {folder / FINAL}"
    )
    if test:
        _test(trained, results, gpu)


def describe(outcome: Any, config: Any) -> str:
    """How long the training was, and what it reached, as a person reads it."""
    minutes = config.train.minutes
    if config.probe_only:
        length = f"probe fitted in {outcome.seconds:.0f} s"
    else:
        length = f"{outcome.epochs:.2f} epochs in {outcome.seconds:.0f} s"
        if config.transfer is not None:
            length += ", the probe included"  # which the minutes are not for
        elif minutes is not None:
            length += f" of {minutes * 60:g} asked for"
    reached = f"; on validation {listed(outcome.scores)}" if outcome.scores else ""
    return length + reached


def _test(trained: Any, results: Path | None, gpu: str | None) -> None:
    from training.evaluation.measure import measure_test  # noqa: PLC0415
    from training.provenance import (  # noqa: PLC0415
        circumstances,
        command_line,
        write_results,
    )

    config = trained.config
    found = measure_test(
        trained.network, trained.splits.test, config, trained.objective
    )
    typer.echo(f"on the test split: {listed(found)}")
    if results is None:
        return
    outcome = trained.outcome
    write_results(
        results,
        {
            "network": config.network.name,
            "data": trained.splits.dataset.name,
            "train_images": len(trained.splits.train),
            "test": found,
            "validation": outcome.scores,
            "training_seconds": round(outcome.seconds, 1),
            "epochs": outcome.epochs,
            "plan": asdict(outcome.plan) | {"epochs": outcome.plan.epochs},
            **circumstances(command_line(), gpu=gpu),
            "config": config.model_dump(mode="json"),
        },
    )


def _find_rate(config: Any, data: Path, folder: Path, ranks: Any) -> None:
    from training.errors import ConfigError  # noqa: PLC0415
    from training.files import try_file  # noqa: PLC0415
    from training.loop.rate_finder import draw_rates, find_rate  # noqa: PLC0415
    from training.loop.runs import prepare  # noqa: PLC0415

    if config.transfer is not None:
        raise ConfigError(
            "--find-rate searches the rates of [[optimizer]]; [transfer] has its own: "
            "transfer.head_rate and transfer.body_rate"
        )
    try_file(folder / "rates.png")
    ready = prepare(config, root=data, runs=folder.parent, ranks=ranks)
    curve = find_rate(
        ready.network, config, ready.batches, ready.objective, ranks, ready.proxy
    )
    draw_rates(curve, folder / "rates.png")
    typer.echo(
        f"multiply the learning rates by about {curve.suggested:.3g}; the curve is in "
        f"{folder / 'rates.png'}"
    )
