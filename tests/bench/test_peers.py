"""How the peers are set up; what needs their own environment runs only where it is."""

import os
import subprocess

import pytest

from bench.circumstances import REPOSITORY
from bench.launch import ask, best_prediction, free_port, running
from bench.peers.arrangement import Arrangement, Served
from bench.peers.catalog import (
    PEERS_PYTHON,
    TUNED,
    arrange,
    contestants,
    documented,
    environment,
    is_installed,
)
from bench.peers.tune import grid
from bench.workloads import Workload
from tests.synthetic import make_bundle, png

IMAGE = png((200, 30, 30))
SINGLE = arrange("BentoML", Arrangement(threads=1, tuned=True))
(BATCHED,) = [c for c in documented() if c.name == "BentoML"]

needs_peers = pytest.mark.skipif(
    not is_installed(), reason="make .venv-peers/.installed"
)


def test_ray_is_tuned_as_its_page_on_throughput_says():
    """Its "Enable High Throughput" names two variables, which belong together."""
    tuned = arrange("Ray Serve", TUNED["digits"]["Ray Serve"])

    assert tuned.environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert tuned.environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"


def test_bentoml_gets_the_raw_image_unless_it_batches():
    """Its batchable API takes a list, and only a form carries one."""
    batched = arrange("BentoML", Arrangement(batch=32, tuned=True))

    assert SINGLE.body(IMAGE).content == IMAGE
    assert batched.body(IMAGE).content_type.startswith("multipart/form-data")


@needs_peers
@pytest.mark.parametrize("contestant", [SINGLE, BATCHED], ids=["single", "batched"])
def test_bentoml_answers_and_writes_no_line_for_a_request(contestant, tmp_path):
    """Its access log is on by default, and would be part of what is measured."""
    log = tmp_path / "log"
    bundle = make_bundle(tmp_path / "models")
    served = Served(bundle, "fp32", free_port(), contestant.arrangement)
    body = contestant.body(IMAGE)
    command = contestant.command(served)

    with running(
        ["sh", "-c", 'exec "$@" > "$0" 2>&1', str(log), *command],
        environment(contestant, served),
        port=served.port,
        probe=body,
    ) as (target, _):
        before = log.read_text()
        answers = [best_prediction(ask(target, body)) for _ in range(3)]

    assert len(set(answers)) == 1
    assert "initialized" in before
    assert "status=200" not in log.read_text()


@needs_peers
@pytest.mark.parametrize("name", ["Batched", "Single"])
def test_ray_writes_no_line_for_a_request(name, tmp_path):
    """Neither its replicas nor its proxy, which both do by default."""
    code = (
        f"from bench.peers.ray_server import QUIET, {name} as deployment\n"
        "print(deployment._deployment_config.logging_config, QUIET)"
    )
    variables = Served(tmp_path, "fp32", 1, Arrangement()).environment()

    done = subprocess.run(
        [PEERS_PYTHON, "-c", code],
        env={**os.environ, **variables},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.count("'enable_access_log': False") == 2


def test_tuned_peers_use_every_core(monkeypatch, tmp_path):
    """Tuned on two: on eight, ours alone would have the other six."""
    monkeypatch.setattr("bench.peers.catalog.available_cores", lambda: 8)
    workload = Workload("digits", (IMAGE,), tmp_path, 64)

    tuned = [c for c in contestants(workload) if c.setting == "tuned"]

    for contestant in tuned:
        arranged = contestant.arrangement
        assert max(arranged.processes, arranged.fronts) == 8
        assert arranged.batch == TUNED["digits"][contestant.name].batch


@pytest.mark.parametrize("name", list(TUNED["photos"]))
def test_a_search_tries_each_arrangement_once(name):
    """Without mates there is nothing to wait for: those would differ in name only."""
    tried = grid(name, cores=2)

    assert len(set(tried)) == len(tried)
    assert len({a.wait_ms for a in tried if a.batch == 1}) == 1
    assert all(a.tuned for a in tried)


@pytest.mark.parametrize("workload", list(TUNED))
@pytest.mark.parametrize("name", list(TUNED["photos"]))
def test_the_catalogs_arrangements_are_on_the_grid(workload, name):
    """A tuned row that the search never tries could not be found again."""
    assert TUNED[workload][name] in grid(name, cores=2)
