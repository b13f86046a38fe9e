"""Processor time is told apart by who spends it."""

import os
import time

import pytest

from bench import wrk
from bench.bodies import raw
from bench.model import Model
from bench.processor import Spent, measure, threads_ms
from bench.service import serving
from bench.workloads import Workload
from tests.synthetic import make_bundle, png


def test_the_share_of_the_limit_counts_everybody():
    """The client as well: it has its part of the same cores."""
    assert Spent(9.0, 0.5, 9.25, 0.25).share == 0.9


def test_a_thread_that_works_is_seen_to():
    """By the time that it has had, not by the clock."""
    me = os.getpid()
    before = threads_ms(me)[me]
    began_s = time.thread_time()
    while time.thread_time() - began_s < 0.02:
        pass

    assert threads_ms(me)[me] - before >= 15


@pytest.mark.skipif(wrk.shutil.which("wrk") is None, reason="wrk is not installed")
def test_a_service_is_measured(tmp_path):
    """Every part is there, and positive."""
    bundle = make_bundle(tmp_path)
    image = png((9, 9, 9), (300, 300))
    workload = Workload("digits", (image,), bundle.parent, connections=2)
    model = Model.load(bundle, precision="fp32", threads=1)

    with serving(tmp_path, "colors", probe=raw(image)) as service:
        table = measure(service, model, workload, rounds=1, seconds=1.0)

    assert all(spent_ms > 0 for spent_ms in table["processor_ms"].values())
    assert 0 < table["share_of_limit"] < 1.5
