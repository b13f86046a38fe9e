"""image → **outcome**: what HTTP asks of an engine, and what an engine hands back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from classifier.decode import ImageInfo
from classifier.errors import ClassifierError
from classifier.manifest import Manifest
from classifier.preprocess import Pixels
from service.errors import ServiceError

ModelKey = tuple[str, int]  # name, version


class Timing(NamedTuple):
    """Where the time of one image went, and how many images ran with it."""

    decode_ms: float
    queue_ms: float
    batch_ms: float
    infer_ms: float
    batch_size: int

    @classmethod
    def longest(cls, timings: Sequence["Timing"]) -> "Timing | None":
        """The longest time that any image of a request spent in each phase."""
        if not timings:
            return None
        return cls(
            decode_ms=max(t.decode_ms for t in timings),
            queue_ms=max(t.queue_ms for t in timings),
            batch_ms=max(t.batch_ms for t in timings),
            infer_ms=max(t.infer_ms for t in timings),
            batch_size=max(t.batch_size for t in timings),
        )


class Outcome(NamedTuple):
    """One image, run."""

    logits: npt.NDArray[np.float32]  # [K]
    scores: npt.NDArray[np.float32]  # [K], their probabilities
    image: ImageInfo
    warnings: tuple[str, ...]
    timing: Timing
    class_maps: npt.NDArray[np.float32] | None = None  # [K, h, w], when asked for


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One bundle that an engine serves, and how."""

    manifest: Manifest
    precision: str
    device: str
    explains: bool  # the graph has the output `class_maps`

    @property
    def key(self) -> ModelKey:
        """Name and version."""
        return self.manifest.name, self.manifest.version


Settled = Outcome | ClassifierError | ServiceError


def outcome_of(settled: Settled) -> Outcome:
    """The outcome; its error is raised.

    Without the stack of an earlier time: several images may have been settled with one
    error, and each `raise` adds to it.
    """
    if not isinstance(settled, Outcome):
        raise settled.with_traceback(None)
    return settled


# Called on the event loop with an image's position in its request and its result.
Settle = Callable[[int, Settled], None]
Withdraw = Callable[[], None]


class Engine(Protocol):
    """Decodes, batches and runs. Everything is called on one event loop.

    Deadlines are instants of that loop's clock.
    """

    @property
    def loaded(self) -> Sequence[LoadedModel]:
        """The bundles that are served, each (name, version) once."""

    def unready(self) -> str | None:
        """Why traffic should stay away just now; None when it may come."""

    def queued(self, key: ModelKey) -> int:
        """Images that wait for that model."""

    async def broken(self) -> None:
        """Wait until only a new process could serve again; that may be for ever."""

    async def start(self) -> None:
        """Load, replay the goldens, warm up."""

    def submit(
        self,
        key: ModelKey,
        images: Sequence[bytes],
        *,
        deadline: float | None,
        settle: Settle,
        explain: bool = False,
    ) -> Withdraw | None:
        """Take the images of one request, all or none.

        `settle` is called once for each, later, never from within this call. Calling
        what is returned withdraws the request: what has not begun is not run, though
        what has begun may still be settled. None: it is done in the next turn of the
        loop, too soon to be withdrawn. `explain` asks for class maps, of a model that
        is loaded with `explains`.

        Raises:
            ServiceError: the request is refused as a whole; nothing will be settled.
        """

    def submit_decoded(
        self,
        key: ModelKey,
        pixels: Sequence[Pixels],
        *,
        deadline: float | None,
        settle: Settle,
        explain: bool = False,
    ) -> Withdraw:
        """`submit` for what is pixels already, uint8 [H, W, C] of that model each.

        Their outcomes know neither size nor format of a file. The pixels are read until
        they are settled or withdrawn.
        """

    async def close(self) -> int:
        """Stop every lane. What still waits is settled with an error.

        Answers how many threads are left behind, since they hang.
        """
