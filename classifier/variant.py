"""bundle, device → **session**: which of its graphs, loaded and proven."""

import math
import time
from typing import Literal

import numpy as np

from classifier.bundle import Bundle
from classifier.errors import BundleError, ClassifierError
from classifier.golden import replay
from classifier.hardware import has_fast_int8
from classifier.manifest import GraphVariant, Precision
from classifier.session import Device, Session

PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]

# Graphs of more bytes are faster in int8 on every processor that has it. In smaller
# ones the conversions may cost more than they save, so these are timed.
SMALL_GRAPH_BYTES = 1_000_000
# fp32 must be so many times as fast to be preferred: a measurement that is disturbed
# should not decide.
CLEARLY_FASTER = 1.25
TIMED_RUNS = 9


def choose_variant(
    bundle: Bundle, precision: Precision | str, device: Device
) -> GraphVariant:
    """The graph to use: the one asked for, or the best that passed its gate.

    Where a small graph has passed, but fp32 is clearly faster here, that is fp32.

    Raises:
        BundleError: the bundle has no such graph, or its files are not as it says.
        SessionError: ONNX Runtime refuses a graph.
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
        if passed and (device == "cuda" or not _fp32_is_faster(bundle, small)):
            return small
    return bundle.manifest.graph(Precision.FP32) or bundle.manifest.graphs[0]


def _fp32_is_faster(bundle: Bundle, small: GraphVariant) -> bool:
    """Whether fp32 answers one image clearly sooner; never where both take long."""
    reference = bundle.manifest.graph(Precision.FP32)
    if reference is None:
        return False
    pair = (reference, small)
    if any(bundle.graph_bytes(variant) > SMALL_GRAPH_BYTES for variant in pair):
        return False
    sessions = [Session.load(bundle.read_graph(v), threads=1) for v in pair]
    image = np.zeros((1, *bundle.manifest.preprocess.shape), np.uint8)
    best_s = [math.inf, math.inf]
    for _ in range(TIMED_RUNS):
        for index, session in enumerate(sessions):
            start_s = time.perf_counter()
            session.run(image)
            best_s[index] = min(best_s[index], time.perf_counter() - start_s)
    return best_s[0] * CLEARLY_FASTER < best_s[1]


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
    golden = bundle.read_golden()
    try:
        session = Session.load(graph, device=device, threads=threads)
        expected = (manifest.preprocess.shape, manifest.logits)
        if (session.shape, session.logits) != expected:
            raise BundleError(
                f"{variant.file} maps pixels {session.shape} to {session.logits} "
                f"logits; the manifest says {expected[0]} and {expected[1]}"
            )
        replay(golden, session, variant)
    except ClassifierError as error:  # many bundles have graphs of the same file name
        name = f"{manifest.full_name} {variant.precision}"
        raise type(error)(f"{name}: {error}") from error
    return session
