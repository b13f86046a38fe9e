"""image → **outcome**: what HTTP asks of an engine, and what an engine hands back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from classifier.decode import ImageInfo
from classifier.errors import ClassifierError
from classifier.manifest import Manifest
from service.errors import ServiceError

ModelKey = tuple[str, int]  # name, version


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one image went, and how many images ran with it."""

    decode_ms: float
    queue_ms: float
    batch_ms: float
    infer_ms: float
    batch_size: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image, run."""

    logits: npt.NDArray[np.float32]  # [K]
    image: ImageInfo
    warnings: tuple[str, ...]
    timing: Timing
    class_maps: npt.NDArray[np.float32] | None = None  # [K, h, w], when asked for


@dataclass(frozen=True, slots=True)
class Loaded:
    """One bundle that an engine serves, and how."""

    manifest: Manifest
    precision: str
    device: str
    explains: bool  # the graph has the output `class_maps`


class Engine(Protocol):
    """Decodes, batches and runs. Deadlines are instants of the event loop's clock."""

    @property
    def loaded(self) -> Sequence[Loaded]:
        """The bundles that are served, each (name, version) once."""

    def unready(self) -> str | None:
        """Why traffic should stay away just now; None when it may come."""

    def queued(self, key: ModelKey) -> int:
        """Images that wait for that model."""

    async def start(self) -> None:
        """Load, replay the goldens, warm up."""

    async def classify(
        self,
        key: ModelKey,
        data: bytes,
        *,
        deadline: float | None,
        explain: bool = False,
    ) -> Outcome:
        """Run one image, or raise a ClassifierError or ServiceError.

        `explain` asks for class maps, of a model that is loaded with `explains`.
        """

    async def classify_many(
        self,
        key: ModelKey,
        images: Sequence[bytes],
        *,
        deadline: float | None,
        explain: bool = False,
    ) -> Sequence[Outcome | ClassifierError | ServiceError]:
        """Run many, in order; a failure stands in the place of its image."""

    async def drain(self) -> None:
        """Finish what was accepted; refuse what comes later."""

    async def close(self) -> None:
        """Stop every lane. Nothing is answered after this."""
