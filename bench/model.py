"""bytes → pixels → logits → **answer**, the same for the limit and for every peer.

A peer that brought its own preprocessing would measure that instead of its server, so
all of them get Linnaeus' decode, session and top-k, each of which may be called in the
process and thread where a framework wants it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classifier.bundle import Bundle, load_bundle
from classifier.classifier import choose_variant
from classifier.postprocess import Postprocessor
from classifier.preprocess import Pixels, preprocess
from classifier.session import Batch, Logits, Session

PREDICTIONS = 5  # in every answer, as the service does by default


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
    """One bundle loaded in one process, warm."""

    def __init__(
        self, bundle: Bundle, *, precision: str, threads: int | None = None
    ) -> None:
        super().__init__(bundle)
        variant = choose_variant(bundle, precision, "cpu")
        self.precision = str(variant.precision)
        self._session = Session.load(bundle.read_graph(variant), threads=threads)
        self._postprocessor = Postprocessor(bundle.manifest)
        self.top_k = min(PREDICTIONS, self._postprocessor.max_top_k)
        self.run(np.zeros((1, *self._spec.shape), np.uint8))

    @classmethod
    def load(cls, path: Path, *, precision: str, threads: int | None = None) -> "Model":
        """From a bundle's folder."""
        return cls(load_bundle(path), precision=precision, threads=threads)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the pixels."""
        return self._spec.shape

    def run(self, batch: Batch) -> Logits:
        """uint8 [N, H, W, C] → float32 [N, K]."""
        return self._session.run(batch)

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
        answer = self._postprocessor.answer(scores, top_k=self.top_k)
        predictions = [
            {"label": p.label, "index": p.index, "score": p.score}
            for p in answer.predictions
        ]
        return {"predictions": predictions}
