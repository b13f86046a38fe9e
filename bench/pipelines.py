"""arrangement → **images a second**: decode and session overlapped, nothing else.

*Beside*: each worker decodes a batch and runs it itself, so pixels stay in its cache.
*Ahead*: the workers only decode, and one session takes their batches.
"""

import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.model import Decoder, Model
from classifier.bundle import load_bundle
from classifier.session import Batch

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Who decodes, who runs, how many together."""

    kind: Literal["threads", "processes"]
    decode: Literal["beside", "ahead"]
    workers: int
    threads: int  # of one run of a session
    batch: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One arrangement to be run for some seconds."""

    pipeline: Pipeline
    bundle: Path
    precision: str
    images: Sequence[bytes]
    seconds: float

    def load_model(self) -> Model:
        """The session as arranged, warm."""
        threads = self.pipeline.threads
        return Model.load(self.bundle, precision=self.precision, threads=threads)


def measure(trial: Trial) -> float:
    """Images a second of one arrangement, after everything in it is loaded and warm."""
    return _ahead(trial) if trial.pipeline.decode == "ahead" else _beside(trial)


def _positions(count: int, *, batch: int, first: int = 0) -> Iterator[list[int]]:
    """Endless batches of positions that go round `count` images."""
    at = first
    while True:
        yield [(at + n) % count for n in range(batch)]
        at += batch


def _beside(trial: Trial) -> float:
    pipeline = trial.pipeline
    if pipeline.kind == "threads":
        start: Any = threading.Barrier(pipeline.workers)
        counts: Any = queue.SimpleQueue()
        worker: Any = threading.Thread
    else:
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(pipeline.workers)
        counts = context.Queue()
        worker = context.Process
    workers = [
        worker(target=_work, args=(trial, number, start, counts), daemon=True)
        for number in range(pipeline.workers)
    ]
    for one in workers:
        one.start()
    done = [counts.get(timeout=START_TIMEOUT_S + trial.seconds) for _ in workers]
    for one in workers:
        one.join()
    return float(sum(count / spent_s for count, spent_s in done))


def _work(trial: Trial, number: int, start: Any, counts: Any) -> None:
    pipeline, images, model = trial.pipeline, trial.images, trial.load_model()
    # Workers begin at different images, or they would share each other's cache.
    first = number * len(images) // pipeline.workers
    turns = _positions(len(images), batch=pipeline.batch, first=first)

    def turn() -> None:
        model.run(model.batch([images[at] for at in next(turns)]))

    turn()
    start.wait(START_TIMEOUT_S)
    count, started_s = 0, time.perf_counter()
    while (spent_s := time.perf_counter() - started_s) < trial.seconds:
        turn()
        count += pipeline.batch
    counts.put((count, spent_s))


def _ahead(trial: Trial) -> float:
    pipeline, images, model = trial.pipeline, trial.images, trial.load_model()
    with _decoders(trial) as decoders:
        turns = _positions(len(images), batch=pipeline.batch)
        waiting: queue.SimpleQueue[Future[Batch]] = queue.SimpleQueue()

        def ask() -> Future[Batch]:
            return decoders.submit(_decode, next(turns))

        model.run(ask().result(START_TIMEOUT_S))
        count, started_s = 0, time.perf_counter()
        for _ in range(2 * pipeline.workers):  # each decodes one and has one done
            waiting.put(ask())
        while (spent_s := time.perf_counter() - started_s) < trial.seconds:
            waiting.put(ask())
            model.run(waiting.get().result(START_TIMEOUT_S))
            count += pipeline.batch
    return count / spent_s


def _decoders(trial: Trial) -> Executor:
    """Workers that end with the block; only the one that waits answers Ctrl-C.

    A `multiprocessing.Pool` would kill its own: one that is killed while it sends a
    batch keeps the pipe's lock, and the end of the block waits for that forever.
    """
    workers, arguments = trial.pipeline.workers, (trial.bundle, trial.images)
    if trial.pipeline.kind == "threads":
        return ThreadPoolExecutor(workers, initializer=_prepare, initargs=arguments)
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _prepare_apart, arguments)


# What a decoding worker was given once, so that tasks carry only positions.
_OWN = threading.local()


def _prepare(bundle: Path, images: Sequence[bytes]) -> None:
    _OWN.decoder, _OWN.images = Decoder(load_bundle(bundle)), images


def _prepare_apart(bundle: Path, images: Sequence[bytes]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prepare(bundle, images)


def _decode(positions: Sequence[int]) -> Batch:
    batch: Batch = _OWN.decoder.batch([_OWN.images[at] for at in positions])
    return batch
