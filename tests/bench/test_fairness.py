"""What the fairness benchmark counts as a failure."""

from bench.fairness import count_failed
from bench.latency import BROKEN, EXPIRED, Shot
from bench.wrk import Closed


def test_whatever_was_not_answered_failed():
    """A service that refuses batches would be very fair to singles."""
    closed = [Closed(100.0, 100.0, 1.0, 2.0, 3.0, 4.0, failed=n) for n in (0, 3)]
    shots = [Shot(0.0, 0.0, 1.0, status) for status in (200, 503, BROKEN, EXPIRED)]

    assert count_failed(closed, shots) == 6
