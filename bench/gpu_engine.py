"""bundle → **images a second of the engine**, for pixels that others have decoded.

Used by `bench/gpu_serving.py`: what is left beside ONNX Runtime alone is the cost of
tickets, batches and answers.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np

from service.contract import Outcome, Settled
from service.engine.engine import LaneEngine
from service.settings import load_settings

IN_FLIGHT = 256  # images at the engine: more than its lanes hold
WARM_S = 2.0


class Crowd:
    """Requests of decoded images; IN_FLIGHT of the images are at the engine at once."""

    def __init__(self, engine: LaneEngine, *, images: int) -> None:
        """`images` of each request."""
        (loaded,) = engine.loaded
        self._engine = engine
        self._key = loaded.key
        shape = (IN_FLIGHT, *loaded.manifest.preprocess.shape)
        noise = np.random.default_rng(0)
        pixels = noise.integers(0, 256, shape, dtype=np.uint8)
        self._requests = [
            list(pixels[at : at + images]) for at in range(0, IN_FLIGHT, images)
        ]
        self._missing = [0] * len(self._requests)
        self._going = True
        self.begin_count()

    def begin_count(self) -> None:
        """Forget what was counted, which is how warming ends."""
        self.served = self.failed = 0
        self.batches = 0.0  # each of its images is a part of one
        self._began_s = time.perf_counter()

    def start(self) -> None:
        """Send all; each sends itself again."""
        for at in range(len(self._requests)):
            self._submit(at)

    def end(self) -> dict[str, Any]:
        """Send no more; what was found."""
        self._going = False
        return {
            "images_per_s": self.served / (time.perf_counter() - self._began_s),
            "failed": self.failed,
            "mean_batch": self.served / max(self.batches, 1),
        }

    def _submit(self, at: int) -> None:
        self._missing[at] = len(self._requests[at])
        self._engine.submit_decoded(
            self._key,
            self._requests[at],
            deadline=None,
            settle=lambda _, fate: self._settled(at, fate),
        )

    def _settled(self, at: int, fate: Settled) -> None:
        if isinstance(fate, Outcome):
            self.served += 1
            self.batches += 1 / fate.timing.batch_size
        else:
            self.failed += 1
        self._missing[at] -= 1
        if self._going and not self._missing[at]:
            self._submit(at)


async def engine_rate(
    models: Path, name: str, *, device: str, images: int, seconds: float
) -> dict[str, Any]:
    """The engine's images a second, for requests of so many that are decoded."""
    given = {"models": models, "load": name, "device": device}
    settings = load_settings(**given, queue_capacity=2 * IN_FLIGHT, log_level="error")
    engine = LaneEngine(settings)
    await engine.start()
    crowd = Crowd(engine, images=images)
    crowd.start()
    await asyncio.sleep(WARM_S)
    crowd.begin_count()
    await asyncio.sleep(seconds)
    found = crowd.end()
    await engine.close()
    return found
