"""bundle → **served model**: proven, loaded on its device, its costs measured.

On a CPU a model has two sessions of one graph. The narrow one runs in the thread that
calls it, so that lanes run side by side; the wide one puts all cores on a lone request.
"""

import time
from dataclasses import dataclass

import numpy as np

from classifier.bundle import Bundle, list_versions, load_bundle
from classifier.classifier import choose_variant, load_session
from classifier.decode import DecodeLimits, warm_up
from classifier.errors import BundleError
from classifier.hardware import available_cores
from classifier.manifest import GraphVariant, Manifest
from classifier.session import Batch, Device, Session, choose_device
from service.contract import Loaded, ModelKey
from service.settings import Settings

BATCHES = (1, 2, 4, 8)
# A larger batch must be worth its wait: it has to gain this share.
WORTHWHILE = 0.03
MEASURE_S = 0.03  # for each point of the curve
# Below this cost an image is run where it arrives: a thread hop costs as much.
INLINE_COST_S = 0.000_3


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded bundle and how it is served best here."""

    bundle: Bundle
    variant: GraphVariant
    narrow: Session
    wide: Session
    best_batch: int
    run_s: float  # seconds an image, narrow, at the best batch
    lone_s: float  # seconds of a batch of one, wide
    inline: bool  # cheap enough for the event loop

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
            device=self.narrow.device,
            explains=self.narrow.has_class_maps,
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
    cores = available_cores()
    narrow = load_session(bundle, variant, device=device, threads=1)
    wide = narrow
    if device == "cpu" and cores > 1:
        graph = bundle.read_graph(variant)
        wide = Session.load(graph, device=device, threads=cores)
    curve = {n: _seconds(narrow, n) / n for n in BATCHES}
    least = min(curve.values())
    best_batch = min(n for n in BATCHES if curve[n] <= least * (1 + WORTHWHILE))
    lone_s = _seconds(wide, 1)
    return ServedModel(
        bundle=bundle,
        variant=variant,
        narrow=narrow,
        wide=wide if lone_s < curve[1] else narrow,
        best_batch=best_batch,
        run_s=curve[best_batch],
        lone_s=lone_s,
        inline=device == "cpu" and curve[1] < INLINE_COST_S,
    )


def decode_limits(settings: Settings) -> DecodeLimits:
    """What an image may declare."""
    return DecodeLimits(max_pixels=settings.max_pixels)


def _seconds(session: Session, n: int) -> float:
    """Least time of a few runs of a batch of n: the least is what the graph costs."""
    batch: Batch = np.zeros((n, *session.shape), np.uint8)
    session.run(batch)
    least, spent = float("inf"), 0.0
    while spent < MEASURE_S:
        began = time.perf_counter()
        session.run(batch)
        took = time.perf_counter() - began
        least, spent = min(least, took), spent + took
    return least
