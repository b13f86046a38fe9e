"""The GPU sweep, as far as a machine without a GPU can prove it."""

import os
import signal
import threading
import time
from functools import partial
from multiprocessing import Pipe

import numpy as np
import onnx
import pytest

from bench import gpu, gpu_serving
from bench.gpu_engine import engine_rate
from bench.gpu_runners import STILL, STRATEGIES, Options, bucket_of, build_runner, pad
from bench.gpu_sweep import (
    Subject,
    arrangements,
    images_per_s,
    in_flight,
    load_subjects,
    measure,
    mixed_batches,
    nodes_by_provider,
    relative_error,
)
from bench.skeleton import LEFT_OUT, fill, strip
from classifier.device import cuda_problem
from tests.synthetic import graph, make_bundle

CPU = Options(device="cpu")
BUCKETS = (1, 2, 4)
ON_CPU = [strategy for strategy in STRATEGIES if strategy != "graph-a-bucket"]


@pytest.fixture(scope="module")
def subject():
    """Three colors, 8 x 8."""
    return Subject("colors", "fp32", graph(), (8, 8, 3))


@pytest.mark.parametrize("strategy", ON_CPU)
def test_every_strategy_answers_like_the_plain_one(subject, strategy):
    """Padding, bound buffers and sessions a bucket change no logit, at any size."""
    runner = build_runner(strategy, subject.graph, CPU, BUCKETS)
    plain = build_runner("exact", subject.graph, CPU, BUCKETS)

    for n in (1, 3, 4, 2, 3):
        batch = subject.noise(n, seed=n)
        np.testing.assert_allclose(runner.run(batch), plain.run(batch), rtol=1e-6)


def test_a_batch_goes_into_the_smallest_bucket_that_holds_it():
    """And none holds what is larger than all."""
    assert [bucket_of(n, (4, 1, 2)) for n in (1, 2, 3, 4)] == [1, 2, 4, 4]
    with pytest.raises(ValueError, match="largest bucket, 4"):
        bucket_of(5, (1, 2, 4))


def test_padding_is_black_and_behind():
    """The images keep their places."""
    padded = pad(np.full((2, 1, 1, 3), 7, np.uint8), 4)

    assert padded.shape == (4, 1, 1, 3)
    assert padded[:2].min() == 7
    assert padded[2:].max() == 0


def test_a_row_says_how_wrong_a_runner_is(subject):
    """On the CPU the sweep measures itself, so the error is zero."""
    row = measure(subject, "padded", CPU, (1, 2, 32), 0.01)

    assert row["right"]
    assert row["relative_error"] == pytest.approx(0, abs=1e-6)
    assert set(row["images_per_s"]) == {1, 2, 32}
    assert row["mixed_images_per_s"] > 0


def test_a_refused_arrangement_is_a_row_too(subject, monkeypatch):
    """One option that a driver refuses must not end the sweep."""
    monkeypatch.setattr(Options, "provider", lambda *_, **__: "NoSuchProvider")

    row = measure(subject, "padded", CPU, (1,), 0.01)

    assert "NoSuchProvider" in row["failure"]


def test_buckets_may_be_smaller_than_what_is_usually_compared(subject):
    """Then smaller batches are compared with the CPU."""
    assert measure(subject, "padded", CPU, (1, 4), 0.01)["right"]


class Broken:
    """A runner whose graph overflows."""

    def run(self, batch):
        """Not a number, for every image."""
        return np.full((len(batch), 3), np.nan, np.float32)


def test_what_is_no_number_is_not_right(subject):
    """An fp16 graph that overflows would win any sweep."""
    assert relative_error(Broken(), subject, largest=32) == np.inf


def test_the_best_row_is_right_and_whole():
    """One that was right and then ran out of memory has no rate of mixed sizes."""
    fast = {"right": True, "mixed_images_per_s": 2.0}
    rows = [
        {"right": True, "failure": "out of memory"},
        {"right": True, "mixed_images_per_s": 1.0},
        fast,
        {"right": False, "mixed_images_per_s": 3.0},
        {"failure": "its process died"},
    ]

    assert gpu.best_of(rows) is fast
    assert gpu.best_of(rows[:1]) is None


def die(*_):
    """As an illegal access of CUDA would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(*_):
    """As a search that finds no end would."""
    time.sleep(60)


def test_a_row_whose_process_dies_is_a_failed_row(subject):
    """So is one that finds no end; the next one has a process of its own."""
    assert "its process died" in gpu.apart(die, subject, "bound")["failure"]
    late = gpu.apart(sleep, subject, "bound", timeout_s=0.1)
    assert "no end after 0 s" in late["failure"]

    assert gpu.apart(measure, subject, "bound", CPU, (1, 2, 32), 0.01)["right"]


def test_a_row_that_raises_is_a_failed_row():
    """With what was raised, and of which arrangement."""
    ours, theirs = Pipe(duplex=False)

    gpu.answer(theirs, divmod, (1, 0))

    found = ours.recv()
    assert "ZeroDivisionError" in found["failure"]
    assert found["of"] == "[0]"


def test_the_sweep_tries_everything_once():
    """Strategies x layouts, and the dear search where no shape changes."""
    tried = list(arrangements())

    assert len(set(tried)) == len(tried) == (len(STRATEGIES) + len(STILL)) * 2
    assert {options.device for _, options in tried} == {"cuda"}
    dear = {way for way, options in tried if options.conv_search == "EXHAUSTIVE"}
    assert dear == set(STILL)


def test_two_in_flight_count_both(monkeypatch):
    """Their rates add up. Each runs where it was built: CUDA graphs are a thread's."""
    built_in, ran_in = [], []

    class Noted:
        def __init__(self) -> None:
            built_in.append(threading.get_ident())

        def run(self, batch: object) -> None:
            ran_in.append(threading.get_ident())

    def rate(run, batches, *, seconds):
        run(batches[0])
        return 3.0

    monkeypatch.setattr("bench.gpu_sweep.images_per_s", rate)

    assert in_flight(Noted, 2, np.zeros((1, 8, 8, 3), np.uint8), seconds=1) == 6.0
    assert sorted(ran_in) == sorted(built_in)
    assert len(set(built_in)) == 2


def test_a_batch_in_flight_that_fails_is_no_rate(subject):
    """Half a rate would pass for the whole."""
    build = partial(build_runner, "bound", subject.graph, CPU, BUCKETS)

    with pytest.raises(ValueError, match="largest bucket"):
        in_flight(build, 2, subject.noise(9), seconds=0.01)


@pytest.mark.parametrize("images", [1, 32])
async def test_the_engine_is_kept_busy_and_nothing_fails(tmp_path, images):
    """By requests that send themselves again until they are told to stop."""
    make_bundle(tmp_path, "colors")

    found = await engine_rate(
        tmp_path, "colors", device="cpu", images=images, seconds=0.2
    )

    assert found["images_per_s"] > 0
    assert found["mean_batch"] >= 1
    assert found["failed"] == 0


def test_a_rate_counts_whole_batches():
    """The batches go round, the first time to warm."""
    seen = []

    rate = images_per_s(lambda batch: seen.append(len(batch)), [[0], [0, 0]], seconds=0)

    assert rate > 0
    assert seen[:3] == [1, 2, 1]


def test_mixed_batches_cover_the_sizes_and_repeat(subject):
    """Seeded, so that every arrangement gets the same traffic."""
    sizes = [len(batch) for batch in mixed_batches(subject, largest=4)]

    assert sizes == [len(batch) for batch in mixed_batches(subject, largest=4)]
    assert set(sizes) == {1, 2, 3, 4}


def test_the_profile_says_who_computed(subject):
    """Here the CPU, and nobody else."""
    assert set(nodes_by_provider(subject, CPU)) == {"CPUExecutionProvider"}


def big_graph():
    """A graph with a weight big enough to be left out."""
    return graph(classes=2000)


def test_a_skeleton_leaves_out_what_is_big():
    """It shrinks to a fraction, and says what is missing."""
    whole = big_graph()

    skeleton = strip(whole)

    assert len(skeleton) < len(whole) / 10
    missing = [
        tensor
        for tensor in onnx.load_from_string(skeleton).graph.initializer
        if tensor.doc_string == LEFT_OUT
    ]
    assert [tuple(tensor.dims) for tensor in missing] == [(3, 2000)]


def test_a_filled_skeleton_runs_and_repeats():
    """The same seed gives the same weights on every host."""
    filled = fill(strip(big_graph()), seed=3)

    assert filled == fill(strip(big_graph()), seed=3)
    assert filled != fill(strip(big_graph()), seed=4)
    runner = build_runner("exact", filled, CPU, BUCKETS)
    assert np.isfinite(runner.run(np.zeros((2, 8, 8, 3), np.uint8))).all()


def test_a_whole_graph_is_not_touched_by_filling():
    """Trained weights stay trained."""
    whole = big_graph()

    refilled = onnx.load_from_string(fill(whole))

    assert refilled == onnx.load_from_string(whole)


def test_subjects_are_named_by_their_files(tmp_path):
    """NAME.PRECISION.onnx."""
    (tmp_path / "colors.v2.fp32.onnx").write_bytes(graph())

    (subject,) = load_subjects(tmp_path)

    assert (subject.name, subject.precision) == ("colors.v2", "fp32")
    assert subject.shape == (8, 8, 3)


@pytest.mark.skipif(cuda_problem() is None, reason="this machine has a GPU")
@pytest.mark.parametrize("command", [gpu, gpu_serving])
def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path, capsys, command):
    """A table from the CPU under the name of a GPU would be worse than none."""
    record = tmp_path / "gpu.json"

    code = command.main(["--graphs", str(tmp_path), "--json", str(record)])

    assert code == 2
    assert "nothing was measured" in capsys.readouterr().err
    assert not record.exists()
