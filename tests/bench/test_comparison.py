"""contestants → rounds, with our own service as the only one that is installed here."""

import asyncio
import json
from dataclasses import replace

import pytest

from bench import wrk
from bench.bodies import raw
from bench.launch import LaunchError, check_answers
from bench.peers.__main__ import main
from bench.peers.arrangement import Arrangement, Served
from bench.peers.catalog import Contestant, contestants
from bench.peers.comparison import Plan, compare, expected_answers
from bench.pipelines import Pipeline
from bench.workloads import Workload
from tests.bench.tiny_server import response, tiny_server
from tests.synthetic import make_bundle, png

IMAGES = tuple(png((value, 0, 0)) for value in (20, 60, 120, 180, 240))
ONE_WORKER = Pipeline("threads", "beside", workers=1, threads=1, batch=1)

needs_wrk = pytest.mark.skipif(
    wrk.shutil.which("wrk") is None, reason="wrk is not installed"
)


@pytest.fixture
def workload(tmp_path):
    """Three colors."""
    return Workload("digits", IMAGES, make_bundle(tmp_path).parent, connections=2)


def plan_of(workload):
    """As short as wrk can."""
    return Plan(workload, "fp32", rounds=1, seconds=0.5, warm_seconds=0.5)


@needs_wrk
def test_the_service_takes_its_turn(workload):
    """Started as a user starts it, its answers checked, then measured."""
    (ours, *_) = contestants(workload)
    told = []

    ((top, found),) = compare(
        plan_of(workload),
        [replace(ours, precision="fp32")],
        {"fp32": ONE_WORKER},
        tell=told.append,
    )

    assert found.failure is None
    assert found.median("requests_per_s") > 0
    assert found.median("failed") == 0
    assert found.median("memory_mb") > 10
    assert top.median("requests_per_s") > 0
    assert len(told) == 2


def test_a_server_that_does_not_start_is_told_of_and_left_out(workload):
    """The others go on."""
    broken = Contestant("Mosec", "tuned", lambda _: ["sh", "-c", "echo no; exit 1"])
    told = []

    *_, (found,) = compare(
        replace(plan_of(workload), rounds=2), [broken], {}, tell=told.append
    )

    assert found.rounds == []
    assert "ended with 1: no" in found.failure
    assert "FAILED" in told[0]


def test_each_round_begins_with_another_server(workload, monkeypatch):
    """What a turn leaves behind, warm or busy, would always meet the same one."""
    turn = dict.fromkeys(
        ("requests_per_s", "p50_ms", "p99_ms", "failed", "cores", "memory_mb"), 1.0
    )
    monkeypatch.setattr("bench.peers.comparison.one_round", lambda *_: turn)
    contestants = [
        Contestant(name, "tuned", lambda _: []) for name in ("FastAPI", "Mosec")
    ]
    told = []

    *_, found = compare(
        replace(plan_of(workload), rounds=3, seconds=0.05),
        contestants,
        {"fp32": ONE_WORKER},
        tell=told.append,
    )

    firsts = [news.split()[2] for news in told[::3]]
    assert firsts == ["in-process", "FastAPI,", "Mosec,"]
    assert [len(standing.rounds) for standing in found] == [3, 3, 3]


def test_an_interrupted_comparison_has_written_its_whole_rounds(
    workload, tmp_path, monkeypatch
):
    """All peers with three rounds take a quarter of an hour."""
    turn = dict.fromkeys(
        ("requests_per_s", "p50_ms", "p99_ms", "failed", "cores", "memory_mb"), 1.0
    )
    turns = iter([turn, turn])

    def measured(*_):
        try:
            return next(turns)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("bench.peers.comparison.one_round", measured)
    monkeypatch.setattr("bench.peers.__main__.is_installed", lambda: True)
    monkeypatch.setattr("bench.peers.__main__.peer_versions", dict)
    monkeypatch.setattr("bench.peers.__main__.find_limits", lambda *_: {})

    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for number, image in enumerate(workload.images):
        (images / f"{number}.png").write_bytes(image)
    asked = {
        "--workload": "digits",
        "--only": "FastAPI",  # in two settings
        "--images": images,
        "--models": workload.bundle.parent,
        "--model": workload.bundle.name,
        "--out": out,
    }

    with pytest.raises(KeyboardInterrupt):
        main([str(word) for option in asked.items() for word in option])

    record = json.loads((out / "peers-digits.json").read_text())
    assert (record["rounds"], record["whole"]) == (1, False)
    assert [len(row["rounds"]) for row in record["rows"]] == [1, 1]
    assert "FastAPI" in (out / "peers-digits.md").read_text()
    assert (out / "peers-digits.png").is_file()


@pytest.mark.parametrize(("shift", "same"), [(0.0, True), (0.01, False)])
async def test_who_answers_something_else_is_not_measured(workload, shift, same):
    """A server that skips the work would win every comparison."""
    served = Served(workload.bundle / "1", "fp32", 0, Arrangement())
    expected = expected_answers(served, workload)
    index, score = expected[0]
    answer = {"predictions": [{"index": index, "score": score + shift}]}
    body = json.dumps(answer).encode()

    async with tiny_server(lambda _: response(200, body=body)) as (target, _):
        check = asyncio.to_thread(check_answers, target, [raw(IMAGES[0])], expected[:1])
        if same:
            await check
        else:
            with pytest.raises(LaunchError, match="the bundle says"):
                await check
