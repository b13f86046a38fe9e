"""machine, bundles → **findings**: what is really used, what to do about trouble."""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from classifier import hardware
from classifier.bundle import list_bundles, load_bundle
from classifier.decode import FORMATS, MAX_BYTES_A_PIXEL
from classifier.device import DeviceChoice, choose_device
from classifier.errors import BundleError, ClassifierError
from classifier.golden import replay
from classifier.resample import why_pillow_scales
from classifier.runtime import installed_builds, onnxruntime
from classifier.session import Device, Session
from classifier.versions import versions
from service import leader
from service.catalog import choose_default
from service.engine.models import EngineModel, find_bundles, load_model
from service.errors import SettingsError
from service.files import OTHER_FILES, connections_within, raise_descriptors
from service.settings import Settings, load_settings
from service.shared.slots import slot_bytes

Level = Literal["ok", "note", "problem"]
SUBJECT_WIDTH = len("imagenet/1 fp32")  # a longer one moves its line to the right
MARKS = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]"}
PACKAGES = ("numpy", "pillow", "fastapi", "uvicorn", "uvloop", "httptools", "pydantic")


class Finding(NamedTuple):
    """One line of the examination."""

    level: Level
    subject: str
    text: str
    advice: str = ""


def command(
    models: Annotated[
        Path, typer.Option(envvar="LINNAEUS_MODELS", help="Folder of bundles.")
    ] = Path("models"),
    device: Annotated[DeviceChoice, typer.Option(envvar="LINNAEUS_DEVICE")] = "auto",
) -> None:
    """Examine device, threads and bundles. Exit code 1 if there is a problem."""
    console = Console(emoji=False)
    problems = 0
    for finding in examine(models, device):
        # Each at once: a bundle may take more memory than there is, which ends this.
        console.print(as_row(finding))
        problems += finding.level == "problem"
    if problems:
        plural = "" if problems == 1 else "s"
        typer.secho(f"{problems} problem{plural} found", fg="red", err=True)
        raise typer.Exit(1)


def as_row(finding: Finding) -> Table:
    """A finding, with what to do about it below; nothing is cut off."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=len("problem"))
    table.add_column(no_wrap=True, min_width=SUBJECT_WIDTH)
    table.add_column(overflow="fold")
    mark = MARKS.get(finding.level, "[red]problem[/red]")
    found = escape(finding.text)
    if finding.advice:
        found += f"\n[bold]→ {escape(finding.advice)}[/bold]"
    table.add_row(mark, escape(finding.subject), found)
    return table


def examine(models: Path, device: DeviceChoice) -> Iterator[Finding]:
    """Every finding, the machine first."""
    yield from _machine()
    try:
        settings = load_settings(models=models, device=device)
    except SettingsError as error:
        yield Finding("problem", "settings", str(error), "see docs/settings.md")
        settings = None
    if settings is not None:
        yield _connections(settings)
    yield from _packages()
    try:
        chosen, reason = choose_device(device)
    except ClassifierError as error:
        yield Finding(
            "problem",
            "device",
            str(error),
            "install driver and the extra 'gpu', or set LINNAEUS_DEVICE=auto",
        )
        return
    yield Finding("ok", "device", f"{chosen}: {reason}")
    if settings is None:
        return
    yield _memory(settings, chosen)
    try:
        bundles = list_bundles(models)
    except BundleError as error:
        advice = "let the user that serves read it, or set LINNAEUS_MODELS"
        yield Finding("problem", "bundles", str(error), advice)
        return
    if bundles:
        yield from _served(settings)
    for name, numbers in bundles.items():
        for number in numbers:
            yield from _bundle(models / name, number, chosen, settings)
    if not bundles:
        yield Finding(
            "problem",
            "bundles",
            f"{models} holds none" if models.is_dir() else f"{models} is no folder",
            "set LINNAEUS_MODELS, or build one: linnaeus pretrained efficientnet-lite0",
        )


def _served(settings: Settings) -> Iterator[Finding]:
    """Whether `load` and `default_model` name bundles that are there."""
    try:
        names = {bundle.manifest.name for bundle in find_bundles(settings)}
        choose_default(sorted(names), settings.default_model)
    except ClassifierError as error:
        advice = "set LINNAEUS_LOAD to what is there"
        yield Finding("problem", "load", str(error), advice)
    except SettingsError as error:
        advice = "set it to one of these, or LINNAEUS_LOAD to more"
        yield Finding("problem", "default model", str(error), advice)


def _machine() -> Iterator[Finding]:
    yield Finding("ok", "machine", f"{platform.platform()}, {hardware.cpu_name()}")
    affinity, quota = hardware.affinity_cores(), hardware.quota_cores()
    limit = "no quota" if quota is None else f"a cgroup quota of {quota:g} cores"
    text = f"{hardware.available_cores()} cores: affinity {affinity} cores, {limit}"
    fraction = quota is not None and quota != int(quota)
    yield Finding(
        "note" if fraction else "ok",
        "threads",
        text,
        "a quota of whole cores keeps lanes from being throttled" if fraction else "",
    )
    if hardware.has_fast_int8():
        yield Finding("ok", "int8", "8-bit dot products in hardware")
    else:
        yield Finding(
            "note",
            "int8",
            "no 8-bit dot products (VNNI) in hardware",
            "'auto' serves fp32 here, which is faster on this processor",
        )


def _memory(settings: Settings, device: Device) -> Finding:
    """Whether the worst images, one in each lane, fit beside the largest bodies, and
    the places that several processes share with one engine.
    """
    limit = hardware.memory_bytes()
    shared = leader.shares_engine(settings, on_gpu=device == "cuda")
    # `auto` decides when the models are measured: docs/settings.md says what is counted
    processes = leader.processes_wanted(settings, light=False, shared=shared)
    shared = shared and processes > 1
    own = leader.lanes_each(settings, processes)
    each = leader.cores_each(processes) if shared else own
    lanes = processes * each
    images = lanes * settings.max_pixels * MAX_BYTES_A_PIXEL
    bodies = processes * settings.max_buffered_bytes
    if shared:
        bodies += (processes - 1) * _places_bytes(settings)
    needed = images + bodies
    plural = "" if processes == 1 else "es"
    places = " and places of a shared engine" if shared else ""
    text = (
        f"at worst {needed / 1e9:.1f} GB for images in {lanes} "
        f"{'threads that decode' if shared else 'lanes'} and "
        f"bodies{places} in {processes} process{plural}; "
        f"there are {'unknown' if limit is None else f'{limit / 1e9:.1f}'} GB"
    )
    if limit is None or needed <= limit:
        return Finding("ok", "memory", text)
    left = max(0, limit - bodies)
    fitting = left // (lanes * MAX_BYTES_A_PIXEL)
    return Finding(
        "note",
        "memory",
        text,
        f"give more, or set LINNAEUS_MAX_PIXELS to {fitting} or less"
        if fitting
        else "give more, or set LINNAEUS_MAX_BUFFERED_BYTES to less",
    )


def _places_bytes(settings: Settings) -> int:
    """Of the pixels that one process may have under way in the engine of another."""
    try:
        manifests = [bundle.manifest for bundle in find_bundles(settings)]
    except ClassifierError:
        return 0  # what is wrong with them is a finding of its own
    return leader.slots_wanted(settings, len(manifests)) * slot_bytes(manifests)


def _connections(settings: Settings) -> Finding:
    """Whether the limit on open files allows as many as the setting says."""
    raise_descriptors()  # as `serve` does
    wanted = settings.max_connections
    most = connections_within(wanted)
    text = f"at most {most} in a process"
    if most == wanted:
        return Finding("ok", "connections", text)
    return Finding(
        "note",
        "connections",
        f"{text}, not {wanted}: the system allows it fewer open files",
        f"raise its hard limit (ulimit -Hn) to {wanted + OTHER_FILES}, or set "
        f"LINNAEUS_MAX_CONNECTIONS to {most}",
    )


def _packages() -> Iterator[Finding]:
    builds = ", ".join(
        f"{name} {number}" for name, number in installed_builds().items()
    )
    providers = ", ".join(onnxruntime.get_available_providers())
    yield Finding("ok", "ONNX Runtime", f"{builds}; compiled in: {providers}")
    yield Finding("ok", "packages", ", ".join(_versions()))
    yield Finding("ok", "formats", ", ".join(FORMATS))
    yield _scaling()


def _scaling() -> Finding:
    reason = why_pillow_scales()
    if reason is None:
        return Finding("ok", "scaling", "by SIMD kernels (cykooz-resizer)")
    text = f"by Pillow, which takes three times as long: {reason}"
    return Finding("note", "scaling", text)


def _versions() -> Iterator[str]:
    found = versions(PACKAGES)
    for name in PACKAGES:
        yield f"{name} {found.get(name, 'absent')}"


def _bundle(
    folder: Path, number: int, device: Device, settings: Settings
) -> Iterator[Finding]:
    """Golden replay of every graph, and how the chosen one would be served."""
    subject = f"{folder.name}/{number}"
    try:
        bundle = load_bundle(folder, number)
        golden = bundle.read_golden()
    except ClassifierError as error:
        yield Finding("problem", subject, str(error), "restore or rebuild the bundle")
        return
    for variant in bundle.manifest.graphs:
        try:
            graph = bundle.read_graph(variant)
            session = Session.load(graph, device=device)
            off = replay(golden, session, variant)
        except ClassifierError as error:
            advice = "serve another precision (LINNAEUS_PRECISION), or rebuild it"
            yield Finding(
                "problem", f"{subject} {variant.precision}", str(error), advice
            )
            continue
        text = (
            f"golden replay off by {off:.2g} (allowed {variant.golden_tolerance:.2g}) "
            f"on {session.providers[0]}"
        )
        yield Finding("ok", f"{subject} {variant.precision}", text)
    try:
        yield _arrangement(subject, load_model(bundle, settings, device=device))
    except ClassifierError as error:
        yield Finding("problem", subject, str(error), "see its graphs above")


def _arrangement(subject: str, model: EngineModel) -> Finding:
    arranged = model.arrangement
    crowd, lone = arranged.crowd, arranged.lone
    lanes, run, alone = (
        f"{n} {noun}" + ("" if n == 1 else "s")
        for n, noun in (
            (arranged.lanes, "lane"),
            (crowd.threads, "thread"),
            (lone.threads, "thread"),
        )
    )
    where = " (tiny images: on the event loop)" if model.inline else ""
    text = (
        f"{model.variant.precision} in {lanes}{where}, each a run of {run} with up "
        f"to {crowd.batch} images, {1e3 * crowd.cost_s:.3g} ms an image; "
        f"a lone image on {alone}, {1e3 * lone.cost_s:.3g} ms"
    )
    return Finding("ok", subject, text)
