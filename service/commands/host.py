"""host → **findings**: cores, memory, files and packages, and whether they suffice."""

import platform
from collections.abc import Iterator
from typing import Literal, NamedTuple

from classifier import hardware
from classifier.decode import FORMATS, MAX_BYTES_A_PIXEL
from classifier.errors import ClassifierError
from classifier.resample import why_pillow_scales
from classifier.runtime import installed_builds, onnxruntime
from classifier.session import Device
from classifier.versions import versions
from service import leader
from service.bundles import find_bundles
from service.files import OTHER_FILES, connections_within, raise_descriptors
from service.settings import Settings
from service.shared.slots import slot_bytes

Level = Literal["ok", "note", "problem"]
PACKAGES = ("numpy", "pillow", "fastapi", "uvicorn", "uvloop", "httptools", "pydantic")


class Finding(NamedTuple):
    """One line of the examination."""

    level: Level
    subject: str
    text: str
    advice: str = ""


def machine() -> Iterator[Finding]:
    """The system, and how many of its cores may be used."""
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


def int8() -> Finding:
    """Whether a CPU is fast at it, which decides what 'auto' serves."""
    if hardware.has_fast_int8():
        return Finding("ok", "int8", "8-bit dot products in hardware")
    if not hardware.cpu_flags():
        text = "the system does not say whether there are 8-bit dot products"
        return Finding("note", "int8", text, "'auto' serves fp32 here")
    text = "no 8-bit dot products (VNNI) in hardware"
    advice = "'auto' serves fp32 here, which is faster on this processor"
    return Finding("note", "int8", text, advice)


def memory(settings: Settings, device: Device) -> Finding:
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


def connections(settings: Settings) -> Finding:
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


def packages() -> Iterator[Finding]:
    """What is installed, and what it can do."""
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
