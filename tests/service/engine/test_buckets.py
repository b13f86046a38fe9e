"""Padding to a few sizes changes nothing in the answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.session import Session
from service.engine.buckets import Buckets
from tests.synthetic import graph


@pytest.fixture(scope="module")
def session() -> Session:
    """A tiny real session; on a CPU all sizes can share one."""
    return Session.load(graph(), threads=1)


@given(n=st.integers(1, 23))
def test_a_padded_batch_gives_the_logits_of_the_plain_one(session, n):
    """Below, at, between and beyond the sizes."""
    buckets = Buckets(dict.fromkeys((1, 2, 4, 8), session))
    batch = np.random.default_rng(n).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)

    np.testing.assert_array_equal(buckets.run(batch), session.run(batch))


def test_a_session_sees_only_its_own_batch_size(session):
    """That is the whole point: no session ever changes shape."""
    seen: dict[int, set[int]] = {1: set(), 4: set()}

    class Watched:
        def __init__(self, size):
            self.size = size

        def run(self, batch):
            seen[self.size].add(len(batch))
            return session.run(batch)

    buckets = Buckets({size: Watched(size) for size in seen})
    for n in range(1, 12):
        buckets.run(np.zeros((n, 8, 8, 3), np.uint8))

    assert seen == {1: {1}, 4: {4}}
