"""BentoML: an adaptive batcher in front of a service class.

Documented: a `batchable` API that takes a list of images, so its clients send a form
with a list of one (its page "Adaptive batching"). Tuned: a worker process a core with
one-thread sessions and no metrics, batching or not; without batching the body is the
image itself (its page "Input and output types", root input). Neither logs requests.

Started by `bentoml serve`, which imports this module; the decorators must know the
arrangement by then.
"""

from typing import Any

import bentoml
from PIL import Image

from bench.peers.arrangement import Served

SERVED = Served.from_environment()
ARRANGED = SERVED.arrangement
MAX_LATENCY_MS = 30_000
OPTIONS: dict[str, Any] = {
    "workers": ARRANGED.processes,
    "traffic": {"timeout": 30},
    "logging": {"access": {"enabled": False}},
}
if ARRANGED.tuned:
    OPTIONS["metrics"] = {"enabled": False}


def read(image: Image.Image) -> bytes:
    """The file that was sent; BentoML opens it lazily, nothing is decoded yet."""
    if image.fp is None:
        raise ValueError("the image was decoded before it reached the model")
    image.fp.seek(0)
    return image.fp.read()


@bentoml.service(**OPTIONS)
class Batched:
    """Batches across requests."""

    def __init__(self) -> None:
        self._model = SERVED.load_model()

    @bentoml.api(
        batchable=True,
        max_batch_size=max(ARRANGED.batch, 2),
        max_latency_ms=MAX_LATENCY_MS,
        route="/classify",
    )
    def classify(self, images: list[Image.Image]) -> list[dict[str, Any]]:
        """Many images at once, from several requests."""
        return self._model.classify_many([read(image) for image in images])


@bentoml.service(**OPTIONS)
class Single:
    """Each request by itself."""

    def __init__(self) -> None:
        self._model = SERVED.load_model()

    @bentoml.api(route="/classify")
    def classify(self, image: Image.Image, /) -> dict[str, Any]:
        """One image: the whole body, because the parameter has no name outside."""
        return self._model.classify(read(image))
