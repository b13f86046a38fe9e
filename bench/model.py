"""bytes → pixels → logits → **answer**, the same for the limit and for every peer.

A peer that brought its own preprocessing would measure that instead of its server, so
all of them get Linnaeus' decode, session and top-k, each of which may be called in the
process and thread where a framework wants it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classifier.bundle import Bundle, load_bundle
from classifier.postprocess import Postprocessor
from classifier.preprocess import Pixels, preprocess
from classifier.runtime import onnxruntime
from classifier.session import INPUT, OUTPUT, Batch, Logits, Session
from classifier.variant import choose_variant


class Decoder:
    """The half before the session, for processes that never run one."""

    def __init__(self, bundle: Bundle) -> None:
        self._spec = bundle.manifest.preprocess

    def pixels(self, data: bytes) -> Pixels:
        """An image file → uint8 [H, W, C]."""
        return preprocess(data, self._spec).pixels

    def batch(self, images: Sequence[bytes]) -> Batch:
        """Image files → uint8 [N, H, W, C]."""
        return np.stack([self.pixels(data) for data in images])


class Model(Decoder):
    """One bundle loaded in one process, warm.

    With `threads` the session is the one that Linnaeus uses: that many threads, which
    do not spin. None takes ONNX Runtime's own defaults, as somebody does who follows
    its documentation: a thread a core, spinning while they wait.
    """

    def __init__(self, bundle: Bundle, *, precision: str, threads: int | None) -> None:
        super().__init__(bundle)
        variant = choose_variant(bundle, precision, "cpu")
        self.precision = str(variant.precision)
        graph = bundle.read_graph(variant)
        self._run = _defaults(graph) if threads is None else _tuned(graph, threads)
        self._postprocessor = Postprocessor(bundle.manifest)
        self.run(np.zeros((1, *self._spec.shape), np.uint8))

    @classmethod
    def load(cls, path: Path, *, precision: str, threads: int | None) -> "Model":
        """From a bundle's folder."""
        return cls(load_bundle(path), precision=precision, threads=threads)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the pixels."""
        return self._spec.shape

    def run(self, batch: Batch) -> Logits:
        """uint8 [N, H, W, C] → float32 [N, K]."""
        return self._run(batch)

    def answers(self, pixels: Sequence[Pixels]) -> list[dict[str, Any]]:
        """Images of uint8 [H, W, C] → one JSON-ready answer each, by one run."""
        logits = self.run(np.stack(pixels))  # float32 [N, K]
        return [self._answer(scores) for scores in self._postprocessor.scores(logits)]

    def classify(self, data: bytes) -> dict[str, Any]:
        """An image file → its answer, by itself."""
        return self.answers([self.pixels(data)])[0]

    def classify_many(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """Image files → answers, by one run."""
        return self.answers([self.pixels(data) for data in images])

    def _answer(self, scores: np.ndarray) -> dict[str, Any]:
        answer = self._postprocessor.answer(scores)  # as many as the service answers
        predictions = [
            {"label": p.label, "index": p.index, "score": p.score}
            for p in answer.predictions
        ]
        return {"predictions": predictions}


def _tuned(graph: bytes, threads: int) -> Callable[[Batch], Logits]:
    return Session.load(graph, threads=threads).run


def _defaults(graph: bytes) -> Callable[[Batch], Logits]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def run(batch: Batch) -> Logits:
        logits: Logits = session.run([OUTPUT], {INPUT: batch})[0]
        return logits

    return run
