"""bundle → **engine model**: proven, loaded on its device, its costs measured."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO

from PIL import Image

from classifier.bundle import Bundle
from classifier.decode import DecodeLimits, warm_up
from classifier.errors import SessionError
from classifier.manifest import (
    GraphVariant,
    Manifest,
    PreprocessSpec,
)
from classifier.preprocess import Pixels, preprocess
from classifier.session import Device, Session
from classifier.variant import choose_variant, load_session
from service.bundles import find_bundles
from service.contract import LoadedModel, ModelKey
from service.engine.arrangement import (
    Arrangement,
    arrange_on_cpu,
    arrange_on_cuda,
)
from service.settings import Settings

# Below this cost an image is run where it arrives: a thread hop costs as much.
INLINE_COST_S = 0.000_3
# An image is decoded again and again for so long; the least time counts.
DECODE_MEASURE_S = 0.03


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A loaded bundle as the engine has it: its session, and how to run it here."""

    bundle: Bundle
    variant: GraphVariant
    session: Session  # the one that was proven by the golden examples
    arrangement: Arrangement
    decode_s: float  # seconds to decode an image of the size that the model reads
    golden: Pixels  # uint8 [H, W, C], an image that has run here

    @property
    def inline(self) -> bool:
        """Whether it is cheap enough for the event loop."""
        on_cpu = self.session.device == "cpu"
        return on_cpu and self.arrangement.narrow_s < INLINE_COST_S

    @property
    def key(self) -> ModelKey:
        """Name and version."""
        return self.manifest.name, self.manifest.version

    @property
    def manifest(self) -> Manifest:
        """The bundle's contract."""
        return self.bundle.manifest

    @property
    def loaded(self) -> LoadedModel:
        """What the service tells of it."""
        return LoadedModel(
            manifest=self.manifest,
            precision=self.variant.precision,
            device=self.session.device,
            explains=self.session.has_class_maps,
        )


def load_models(
    settings: Settings, *, device: Device, precisions: Mapping[str, str] | None = None
) -> list[EngineModel]:
    """Load, prove and measure every bundle; `precisions` by NAME/VERSION are decided.

    Raises BundleError or SessionError.
    """
    warm_up()
    decided = precisions or {}
    proven = (
        prove(
            bundle, decided.get(bundle.manifest.full_name, settings.precision), device
        )
        for bundle in find_bundles(settings)
    )
    return arrange(proven, settings, device=device)


def load_model(bundle: Bundle, settings: Settings, *, device: Device) -> EngineModel:
    """Load one bundle on a device and measure it.

    Raises BundleError, SessionError.
    """
    proven = prove(bundle, settings.precision, device)
    return arrange([proven], settings, device=device)[0]


@dataclass(frozen=True, slots=True)
class Proven:
    """A bundle that is loaded and right on its device; not yet measured."""

    bundle: Bundle
    variant: GraphVariant
    graph: bytes
    session: Session
    decode_s: float
    golden: Pixels

    def arranged(self, arrangement: Arrangement) -> EngineModel:
        """As the engine has it."""
        return EngineModel(
            self.bundle,
            self.variant,
            self.session,
            arrangement,
            self.decode_s,
            self.golden,
        )


def prove(bundle: Bundle, precision: str, device: Device) -> Proven:
    """Load the graph that suits, and replay the golden examples on it.

    Raises BundleError, SessionError.
    """
    variant = choose_variant(bundle, precision, device)
    graph = bundle.read_graph(variant)
    session = load_session(bundle, variant, graph=graph, device=device, threads=1)
    golden = bundle.read_golden().pixels[0].copy()  # a view would keep all of them
    decode_s = decode_seconds(golden, bundle.manifest.preprocess)
    return Proven(bundle, variant, graph, session, decode_s, golden)


def arrange(
    proven: Iterable[Proven], settings: Settings, *, device: Device
) -> list[EngineModel]:
    """Measure how each is served best here. Raises BundleError, SessionError."""
    if device == "cpu":  # one after the other: `map` keeps the bytes of no graph
        return list(map(partial(_arranged_on_cpu, settings), proven))
    try:
        together = {each.bundle.manifest.full_name: each for each in proven}
        arrangements = arrange_on_cuda(
            {name: (each.graph, each.session) for name, each in together.items()},
            settings,
        )
    except SessionError as error:
        raise type(error)(
            f"{error}; if the device is full, fewer bundles (LINNAEUS_LOAD) or fewer "
            "lanes (LINNAEUS_LANES) need less of it"
        ) from error
    return [each.arranged(arrangements[name]) for name, each in together.items()]


def _arranged_on_cpu(settings: Settings, proven: Proven) -> EngineModel:
    arrangement = arrange_on_cpu(
        proven.graph, proven.session, settings, decode_s=proven.decode_s
    )
    return proven.arranged(arrangement)


def decode_seconds(pixels: Pixels, spec: PreprocessSpec) -> float:
    """Seconds to decode pixels, uint8 [H, W, C], from PNG: a first estimate."""
    gray = pixels.shape[-1] == 1
    stream = BytesIO()
    Image.fromarray(pixels[..., 0] if gray else pixels).save(stream, "PNG")
    data = stream.getvalue()
    least_s, spent_s = float("inf"), 0.0
    while spent_s < DECODE_MEASURE_S:
        began = time.perf_counter()
        preprocess(data, spec)
        took_s = time.perf_counter() - began
        least_s, spent_s = min(least_s, took_s), spent_s + took_s
    return least_s


def decode_limits(settings: Settings) -> DecodeLimits:
    """What an image may declare."""
    return DecodeLimits(max_pixels=settings.max_pixels)
