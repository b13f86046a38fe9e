"""bundle, device → **session**: which of its graphs, loaded and proven."""

from typing import Literal

from classifier.bundle import Bundle
from classifier.errors import BundleError
from classifier.golden import replay
from classifier.hardware import has_fast_int8
from classifier.manifest import GraphVariant, Precision
from classifier.session import Device, Session

PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]


def choose_variant(
    bundle: Bundle, precision: Precision | str, device: Device
) -> GraphVariant:
    """The graph to use: the one asked for, or the best that passed its gate.

    Raises:
        BundleError: the bundle has no such graph.
    """
    if precision != "auto":
        try:
            wanted = Precision(precision)
        except ValueError:
            allowed = ", ".join(["auto", *Precision])
            raise BundleError(
                f"precision is {precision!r}; allowed are {allowed}"
            ) from None
        return bundle.graph(wanted)
    preferred = Precision.FP16 if device == "cuda" else Precision.INT8
    worthwhile = device == "cuda" or has_fast_int8()
    small = bundle.manifest.graph(preferred)
    if worthwhile and small is not None:
        # without a gate fp16 is only rounded, while int8 may be anything
        passed = small.gate.passed if small.gate else preferred is Precision.FP16
        if passed:
            return small
    return bundle.manifest.graph(Precision.FP32) or bundle.manifest.graphs[0]


def load_session(
    bundle: Bundle,
    variant: GraphVariant,
    *,
    device: Device,
    threads: int | None = None,
    graph: bytes | None = None,
) -> Session:
    """Load one graph of a bundle and prove it by its golden examples.

    `graph` is what `read_graph` gave, for a caller that needs the bytes as well.

    Raises:
        BundleError: altered, of other shapes than the manifest says, or off.
        SessionError: ONNX Runtime refuses.
    """
    manifest = bundle.manifest
    graph = graph or bundle.read_graph(variant)
    session = Session.load(graph, device=device, threads=threads)
    expected = (manifest.preprocess.shape, manifest.logits)
    if (session.shape, session.logits) != expected:
        raise BundleError(
            f"{variant.file} maps pixels {session.shape} to {session.logits} logits; "
            f"the manifest says {expected[0]} and {expected[1]}"
        )
    replay(bundle.read_golden(), session, variant)
    return session
