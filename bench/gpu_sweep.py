"""graph + arrangement → **row**: is it right, how fast at each size and at mixed.

Used by `bench/gpu.py`; its arithmetic is tested on the CPU.
"""

import dataclasses
import functools
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu_runners import (
    STILL,
    STRATEGIES,
    Batch,
    Logits,
    Options,
    Runner,
    Strategy,
    build_runner,
)
from bench.random_bundle import TOLERANCE
from bench.skeleton import fill
from classifier.manifest import Precision
from classifier.runtime import onnxruntime
from classifier.session import INPUT, OUTPUT

CHECKED = (1, 3, 32)  # batch sizes compared with the CPU; 3 is padded


@dataclasses.dataclass(frozen=True)
class Subject:
    """One graph under test."""

    name: str
    precision: str
    graph: bytes
    shape: tuple[int, int, int]  # H, W, C

    @functools.cached_property
    def on_cpu(self) -> Mapping[int, Logits]:
        """Logits of `noise(n, seed=n)` by the CPU, float32 [n, K], for n in CHECKED."""
        session = onnxruntime.InferenceSession(
            self.graph, providers=["CPUExecutionProvider"]
        )
        return {
            n: session.run([OUTPUT], {INPUT: self.noise(n, seed=n)})[0] for n in CHECKED
        }

    def noise(self, n: int, seed: int = 0) -> Batch:
        """Random pixels, uint8 [n, H, W, C]."""
        generator = np.random.default_rng(seed)
        return generator.integers(0, 256, (n, *self.shape), dtype=np.uint8)


def load_subjects(folder: Path) -> list[Subject]:
    """Every NAME.PRECISION.onnx of a folder, skeletons filled with the same weights."""
    subjects = []
    for path in sorted(folder.glob("*.onnx")):
        name, precision = path.stem.rsplit(".", 1)
        graph = fill(path.read_bytes())
        session = onnxruntime.InferenceSession(
            graph, providers=["CPUExecutionProvider"]
        )
        height, width, channels = session.get_inputs()[0].shape[1:]
        subjects.append(Subject(name, precision, graph, (height, width, channels)))
    return subjects


def nodes_by_provider(subject: Subject, options: Options) -> dict[str, int]:
    """How many nodes of a profiled run each execution provider computed."""
    with tempfile.TemporaryDirectory() as folder:
        settings = onnxruntime.SessionOptions()
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            subject.graph, settings, providers=[options.provider(capture=False)]
        )
        session.run([OUTPUT], {INPUT: subject.noise(2)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    counts: dict[str, int] = {}
    for event in events:
        provider = event.get("args", {}).get("provider")
        if provider:
            counts[provider] = counts.get(provider, 0) + 1
    return counts


def relative_error(runner: Runner, subject: Subject, *, largest: int) -> float:
    """Largest |logit difference| to the CPU, as a share of the largest |logit|.

    Of batches of at most `largest`; infinite where a logit is not finite.
    """
    worst = 0.0
    for n, expected in subject.on_cpu.items():
        if n > largest:
            continue
        difference = np.abs(runner.run(subject.noise(n, seed=n)) - expected).max()
        if not np.isfinite(difference):
            return math.inf
        worst = max(worst, float(difference / np.abs(expected).max()))
    return worst


def images_per_s(
    run: Callable[[Batch], object], batches: Sequence[Batch], *, seconds: float
) -> float:
    """Rate over batches that go round, after one round of warming."""
    for batch in batches:
        run(batch)
    count, started_s = 0, time.perf_counter()
    for batch in itertools.cycle(batches):
        run(batch)
        count += len(batch)
        if (spent_s := time.perf_counter() - started_s) >= seconds:
            return count / spent_s
    raise ValueError("no batches")


def mixed_batches(subject: Subject, *, largest: int, seed: int = 0) -> list[Batch]:
    """Batches of varying size, as a busy service cuts them."""
    sizes = np.random.default_rng(seed).integers(1, largest + 1, 50)
    return [subject.noise(int(n), seed=int(n)) for n in sizes]


def in_flight(
    build: Callable[[], Runner], flights: int, batch: Batch, *, seconds: float
) -> float:
    """Images a second of so many threads, all at once; raises what one raises.

    Each thread has a runner that it built itself, while no other did anything: ONNX
    Runtime keeps a CUDA graph for the thread that captured it.
    """
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(flights)]
        runners = [thread.submit(build).result() for thread in threads]
        rates = [
            thread.submit(images_per_s, runner.run, [batch], seconds=seconds)
            for thread, runner in zip(threads, runners, strict=True)
        ]
        return sum(rate.result() for rate in rates)


def arrangements() -> Iterator[tuple[Strategy, Options]]:
    """Everything that is swept on a GPU, the likeliest first: time may run out.

    EXHAUSTIVE search tries every algorithm whenever a shape changes, so it is swept
    only where none does.
    """
    for search, nhwc, strategy in itertools.product(
        ("HEURISTIC", "EXHAUSTIVE"), (False, True), reversed(STRATEGIES)
    ):
        if search == "HEURISTIC" or strategy in STILL:
            yield strategy, Options("cuda", search, nhwc)  # type: ignore[arg-type]


def measure(
    subject: Subject,
    strategy: Strategy,
    options: Options,
    buckets: Sequence[int],
    seconds: float,
) -> dict[str, Any]:
    """One row: error against the CPU, steady rates, the rate of mixed sizes."""
    row: dict[str, Any] = {
        "graph": subject.name,
        "precision": subject.precision,
        "strategy": strategy,
        **dataclasses.asdict(options),
    }
    try:
        started_s = time.perf_counter()
        runner = build_runner(strategy, subject.graph, options, buckets)
        row["start_s"] = time.perf_counter() - started_s
        row["relative_error"] = relative_error(runner, subject, largest=max(buckets))
        row["right"] = row["relative_error"] <= TOLERANCE[Precision(subject.precision)]
        row["images_per_s"] = {
            n: images_per_s(runner.run, [subject.noise(n)], seconds=seconds)
            for n in buckets
        }
        batches = mixed_batches(subject, largest=max(buckets))
        row["mixed_images_per_s"] = images_per_s(runner.run, batches, seconds=seconds)
    except Exception as error:  # a border: one refused option must not end the sweep
        row["failure"] = f"{type(error).__name__}: {error}"[:500]
    return row


def fly(
    subject: Subject, best: Mapping[str, Any], buckets: Sequence[int], seconds: float
) -> dict[str, Any]:
    """One and two batches in flight as the best row has it, of the largest bucket."""
    how = Options("cuda", best["conv_search"], best["prefer_nhwc"])
    batch, rates = subject.noise(max(buckets)), {}
    build = partial(build_runner, best["strategy"], subject.graph, how, buckets)
    for flights in (1, 2):
        rates[flights] = in_flight(build, flights, batch, seconds=seconds)
    return {"strategy": best["strategy"], "images_per_s": rates}


def describe(row: dict[str, Any]) -> str:
    """One line of the table."""
    if "graph" not in row:
        return f"FAILED {row}"
    head = (
        f"{row['graph']} {row['precision']} {row['strategy']} {row['conv_search']}"
        f"{' nhwc' if row['prefer_nhwc'] else ''}"
    )
    if "failure" in row:
        return f"{head}: FAILED {row['failure']}"
    steady = "/".join(f"{rate:,.0f}" for rate in row["images_per_s"].values())
    right = "right" if row["right"] else f"WRONG by {row['relative_error']:.2g}"
    return f"{head}: {steady} | mixed {row['mixed_images_per_s']:,.0f} | {right}"


def describe_flight(subject: Subject, flight: dict[str, Any]) -> str:
    """One line on batches in flight."""
    if "failure" in flight:
        return f"{subject.name} {subject.precision}: in flight: {flight['failure']}"
    rates = " / ".join(f"{rate:,.0f}" for rate in flight["images_per_s"].values())
    return (
        f"{subject.name} {subject.precision} {flight['strategy']}: "
        f"1 / 2 in flight: {rates} images/s"
    )
