"""One lane, a real thread, beside the engine that opens it."""

import threading
import time

import numpy as np
import pytest

from classifier.decode import DecodeLimits, ImageInfo
from classifier.preprocess import Preprocessed
from service.engine.backlog import Backlog
from service.engine.lane import Lane
from service.engine.ticket import Ticket
from service.errors import DeadlineExceededError

MODEL = ("model", 1)
LONG_AGO = 0.0  # of the monotonic clock


def ticket(*, deadline: float | None = None) -> Ticket:
    """An image that is decoded already."""
    pixels = np.zeros((1, 1, 3), np.uint8)
    ready = Preprocessed(pixels, ImageInfo(1, 1, "PNG"), ())
    return Ticket(MODEL, b"", LONG_AGO, deadline, ready=ready)


class Parts:
    """What a lane is built of; what it settles and whether it died."""

    def __init__(self) -> None:
        self.backlog = Backlog(capacity=100, lanes=1)
        self.backlog.add_model(MODEL, best_batch=1, cost_s=0.001)
        self.changed = threading.Condition()
        self.settled: list[Ticket] = []
        self.fates: list[object] = []
        self.died = threading.Event()

    def lane(self, models) -> Lane:
        """A lane of these parts."""
        return Lane(
            "lane",
            backlog=self.backlog,
            changed=self.changed,
            models=models,
            limits=DecodeLimits(),
            settle=self._settle,
            died=lambda *_: self.died.set(),
        )

    def _settle(self, results) -> None:
        self.settled += [each for each, _ in results]
        self.fates += [fate for _, fate in results]


@pytest.fixture
def parts() -> Parts:
    """A backlog for one model whose batches hold one image."""
    return Parts()


def test_an_image_that_came_too_late_hears_so_before_the_batch(parts):
    """Which may take long, hang, or, as here, break."""
    late, sound = ticket(deadline=LONG_AGO + 1), ticket()
    parts.backlog.offer([late], LONG_AGO)
    parts.backlog.offer([sound], LONG_AGO)
    lane = parts.lane(models={})

    lane.start()
    lane.thread.join()

    assert parts.died.is_set()
    assert parts.settled == [late]
    assert isinstance(parts.fates[0], DeadlineExceededError)
