"""bundle → **served model**: proven, loaded on its device, its costs measured.

On a CPU a model has two sessions of one graph. The narrow one runs in the thread that
calls it, so that lanes run side by side; the wide one puts all cores on a lone request.
On a GPU it has a session for each padded batch size.
"""

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from classifier.bundle import Bundle, list_versions, load_bundle
from classifier.decode import DecodeLimits, warm_up
from classifier.errors import BundleError
from classifier.hardware import available_cores
from classifier.manifest import GraphVariant, Manifest
from classifier.session import Batch, Device, Logits, Session, choose_device
from classifier.variant import choose_variant, load_session
from service.contract import Loaded, ModelKey
from service.engine.buckets import SIZES, Buckets
from service.settings import Settings

CPU_BATCHES = (1, 2, 4, 8)  # beyond, the pixels of a batch fall out of the cache
# A larger batch must be worth its wait: it has to gain this share.
WORTHWHILE = 0.03
MEASURE_S = 0.03  # for each point of the curve
# Below this cost an image is run where it arrives: a thread hop costs as much.
INLINE_COST_S = 0.000_3


class Runs(Protocol):
    """What a lane needs of a session."""

    def run(self, batch: Batch) -> Logits:
        """uint8 [N, H, W, C] → float32 [N, K]."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded bundle and how it is served best here."""

    bundle: Bundle
    variant: GraphVariant
    session: Session  # the one that was proven by the golden examples
    narrow: Runs
    wide: Runs
    wide_threads: int
    best_batch: int
    run_s: float  # seconds an image, narrow, at the best batch
    lone_s: float  # seconds of a batch of one, wide

    @property
    def inline(self) -> bool:
        """Whether it is cheap enough for the event loop."""
        return self.session.device == "cpu" and self.lone_s < INLINE_COST_S

    @property
    def key(self) -> ModelKey:
        """Name and version."""
        return self.manifest.name, self.manifest.version

    @property
    def manifest(self) -> Manifest:
        """The bundle's contract."""
        return self.bundle.manifest

    @property
    def loaded(self) -> Loaded:
        """What the service tells of it."""
        return Loaded(
            manifest=self.manifest,
            precision=self.variant.precision,
            device=self.session.device,
            explains=self.session.has_class_maps,
        )


def find_bundles(settings: Settings) -> list[Bundle]:
    """The bundles that the settings name, or the newest of every model.

    Raises:
        BundleError: one of them is not whole, or there is none.
    """
    root = settings.models
    names = settings.load or tuple(
        folder.name
        for folder in (sorted(root.iterdir()) if root.is_dir() else ())
        if list_versions(folder)
    )
    if not names:
        raise BundleError(f"{root} holds no bundle; expected {root}/NAME/VERSION/")
    bundles = []
    for entry in names:
        name, _, version = entry.partition("/")
        if version and not version.isdecimal():
            raise BundleError(f"{entry!r} names no version; write NAME or NAME/2")
        bundles.append(load_bundle(root / name, int(version) if version else None))
    return bundles


def load_models(settings: Settings) -> list[ServedModel]:
    """Load, prove and measure every bundle. Raises BundleError or SessionError."""
    device, _ = choose_device(settings.device)
    warm_up()
    return [
        load_model(bundle, device=device, precision=settings.precision)
        for bundle in find_bundles(settings)
    ]


def load_model(bundle: Bundle, *, device: Device, precision: str) -> ServedModel:
    """Load one bundle on a device and measure it. Raises BundleError, SessionError."""
    variant = choose_variant(bundle, precision, device)
    session = load_session(bundle, variant, device=device, threads=1)
    arrange = _on_cuda if device == "cuda" else _on_cpu
    return arrange(bundle, variant, session)


def _on_cpu(bundle: Bundle, variant: GraphVariant, narrow: Session) -> ServedModel:
    cores, wide = available_cores(), narrow
    curve = {n: _seconds(narrow, narrow.shape, n) / n for n in CPU_BATCHES}
    lone_s = curve[1]
    if cores > 1:
        both = Session.load(bundle.read_graph(variant), threads=cores)
        if (wide_s := _seconds(both, narrow.shape, 1)) < lone_s:
            wide, lone_s = both, wide_s
    best_batch, run_s = _best(curve)
    return ServedModel(
        bundle=bundle,
        variant=variant,
        session=narrow,
        narrow=narrow,
        wide=wide,
        wide_threads=wide.threads,
        best_batch=best_batch,
        run_s=run_s,
        lone_s=lone_s,
    )


def _on_cuda(bundle: Bundle, variant: GraphVariant, proven: Session) -> ServedModel:
    graph = bundle.read_graph(variant)
    others = {size: Session.load(graph, device="cuda") for size in SIZES[1:]}
    buckets = Buckets({SIZES[0]: proven} | others)
    curve = {n: _seconds(buckets, proven.shape, n) / n for n in SIZES}
    best_batch, run_s = _best(curve)
    return ServedModel(
        bundle=bundle,
        variant=variant,
        session=proven,
        narrow=buckets,
        wide=buckets,
        wide_threads=proven.threads,
        best_batch=best_batch,
        run_s=run_s,
        lone_s=curve[1],
    )


def _best(curve: dict[int, float]) -> tuple[int, float]:
    """The smallest batch that is worth it, and its seconds an image."""
    least = min(curve.values())
    batch = min(n for n, cost_s in curve.items() if cost_s <= least * (1 + WORTHWHILE))
    return batch, curve[batch]


def decode_limits(settings: Settings) -> DecodeLimits:
    """What an image may declare."""
    return DecodeLimits(max_pixels=settings.max_pixels)


def _seconds(session: Runs, shape: tuple[int, int, int], n: int) -> float:
    """Least time of a few runs of a batch of n: the least is what the graph costs."""
    batch: Batch = np.zeros((n, *shape), np.uint8)
    session.run(batch)
    least, spent = float("inf"), 0.0
    while spent < MEASURE_S:
        began = time.perf_counter()
        session.run(batch)
        took = time.perf_counter() - began
        least, spent = min(least, took), spent + took
    return least
