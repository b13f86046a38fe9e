"""A failing batch is bisected: only the guilty images fail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.errors import OutOfMemoryError, SessionError
from classifier.session import Session
from service.engine.isolation import run_isolated
from tests.synthetic import POISON, graph


def batch_of(reds: list[int]) -> np.ndarray:
    """Images told apart by the red of all their pixels, uint8 [N, 8, 8, 3]."""
    pixels = np.zeros((len(reds), 8, 8, 3), np.uint8)
    pixels[..., 0] = np.array(reds)[:, None, None]
    return pixels


@pytest.fixture(scope="module")
def session() -> Session:
    """A real graph that fails on a poisoned pixel, inside ONNX Runtime."""
    return Session.load(graph(misbehaves=True), threads=1)


@given(reds=st.lists(st.integers(0, 255).filter(lambda red: red != 249), min_size=1))
def test_only_the_guilty_images_of_a_batch_fail(session, reds):
    """Whatever the mixture, each image has the fate that it has alone."""
    outcomes = run_isolated(session.run, batch_of(reds))

    failed = [isinstance(outcome, SessionError) for outcome in outcomes]
    assert failed == [red >= POISON for red in reds]


def test_the_innocent_get_the_logits_that_they_have_alone(session):
    """Bisection changes who runs together, not what comes out."""
    outcomes = run_isolated(session.run, batch_of([10, 255, 200]))

    for red, outcome in zip((10, 200), outcomes[::2], strict=True):
        np.testing.assert_allclose(outcome, session.run(batch_of([red]))[0], atol=1e-5)


def test_one_guilty_image_costs_a_logarithm_of_runs():
    """A poisoned image in 64 makes 13 runs of them, not 64."""
    runs = 0

    def run(batch):
        nonlocal runs
        runs += 1
        if (batch[..., 0] == 255).any():
            raise SessionError("poisoned")
        return np.zeros((len(batch), 2), np.float32)

    run_isolated(run, batch_of([255] + 63 * [0]))

    assert runs == 13


def test_a_batch_too_large_for_the_device_is_split_until_it_fits():
    """Out of memory is no verdict on any image."""

    def run(batch):
        if len(batch) > 3:
            raise OutOfMemoryError("no room")
        return np.zeros((len(batch), 2), np.float32)

    outcomes = run_isolated(run, batch_of(list(range(16))))

    assert not any(isinstance(outcome, SessionError) for outcome in outcomes)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_numbers_fail_the_image_that_has_them(odd):
    """A network may overflow on one odd image."""

    def run(batch):
        logits = np.zeros((len(batch), 2), np.float32)
        logits[1, 0] = odd
        return logits

    outcomes = run_isolated(run, batch_of([1, 2, 3]))

    assert [isinstance(o, SessionError) for o in outcomes] == [False, True, False]
