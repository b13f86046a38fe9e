"""measurement → record, and what surrounds a measurement."""

import asyncio
import json
import os
import select

import pytest

from bench import wrk
from bench.bodies import raw
from bench.circumstances import circumstances, write_record
from bench.client import Target
from bench.launch import (
    LaunchError,
    best_prediction,
    descendants,
    free_port,
    inherited,
    running,
)
from bench.peers.arrangement import Arrangement, Served
from bench.peers.catalog import SILENT, TUNED, contestants, documented, environment
from bench.workloads import load_workload, read_digits
from tests.bench.tiny_server import response, tiny_server

# Answers every POST with an empty object.
SERVER = (
    "import http.server, sys\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_POST(self):\n"
    "        self.send_response(200); self.end_headers(); self.wfile.write(b'{}')\n"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
)


def test_a_record_keeps_its_circumstances(tmp_path):
    """A figure without commit, machine, versions and command compares with nothing."""
    write_record(tmp_path / "deep/x.json", {"p99_ms": 3.5})

    record = json.loads((tmp_path / "deep/x.json").read_text())

    assert record["p99_ms"] == 3.5
    assert {"commit", "machine", "versions", "command", "measured"} < set(record)
    assert "onnxruntime" in record["versions"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.json"]


def test_a_record_is_written_to_a_pipe_as_it_is(tmp_path):
    """`--json /dev/null` keeps nothing, and must not replace the machine's."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # waits for nobody

    write_record(pipe, {"p99_ms": 3.5})

    assert json.loads(os.read(reader, 65536))["p99_ms"] == 3.5
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir() if path.is_fifo()] == ["pipe"]


def test_a_record_is_json_for_everybody(tmp_path):
    """What is no number is null: no other reader takes NaN, or Infinity."""
    write_record(
        tmp_path / "x.json", {"rows": [{"p99_ms": float("nan")}, float("inf")]}
    )

    text = (tmp_path / "x.json").read_text()

    assert json.loads(text)["rows"] == [{"p99_ms": None}, None]
    assert "NaN" not in text


def test_a_record_names_the_commit():
    """And says when the files differ from it."""
    commit = circumstances()["commit"]

    assert commit == "unknown" or len(commit.removesuffix("+changes")) == 40


def wrk_output(**changes: object) -> str:
    """What wrk and its script print, with some values of the script's line changed."""
    line = {
        "requests": 1000,
        "early": 0,
        "duration_us": 2_000_000,
        "p50_us": 1500,
        "p95_us": 2500,
        "p99_us": 9000,
        "worst_us": 20_000,
        "connect_errors": 0,
        "read_errors": 1,
        "write_errors": 0,
        "timeouts": 0,
        "bad_statuses": 200,
        "took_us": [[]],
    }
    return f"Running 2s test\n  2 threads\n{json.dumps(line | changes)}\n"


def test_a_server_is_started_without_the_settings_of_a_shell(monkeypatch):
    """They would pass for its defaults; where the data lies is no setting of it."""
    monkeypatch.setenv("LINNAEUS_LANES", "1")
    monkeypatch.setenv("LINNAEUS_DATA", "/data")

    settings = {n for n in inherited() if n.startswith("LINNAEUS_")}

    assert settings == {"LINNAEUS_DATA"}
    assert inherited()["PATH"] == os.environ["PATH"]


def test_wrk_is_read_as_rates_and_milliseconds():
    """A refused request is not throughput."""
    closed = wrk.read_report(wrk_output(), images=32)

    assert closed.requests_per_s == 400
    assert closed.images_per_s == 400 * 32
    assert (closed.p50_ms, closed.p99_ms, closed.failed) == (1.5, 9.0, 201)
    assert closed.steady_images_per_s is None


def test_percentiles_are_of_requests_that_were_sent():
    """Where each was noted, what wrk makes up for its pauses does not count."""
    took_us = [[1000, 2000], [3000, 50_000]]

    closed = wrk.read_report(wrk_output(took_us=took_us), images=1)

    assert (closed.p50_ms, closed.p99_ms, closed.worst_ms) == (2.0, 50.0, 50.0)


def test_the_ends_of_a_load_are_no_part_of_a_steady_rate():
    """Waves of four batches, 0.7 s each: six seconds hold eight and a half of them."""
    waves = [[700_000] * 8] * 4  # the ninth is on its way when the load ends

    assert wrk.steady(waves) == pytest.approx(
        4 / 0.7
    )  # where 4 * 8 / 6 would be counted


def test_the_first_requests_found_an_empty_server():
    """The one that had it for itself was the quickest, and tells nothing."""
    assert wrk.steady([[10_000, 50_000], [50_000, 50_000]]) == pytest.approx(40)
    assert wrk.steady([[10_000, 50_000], [50_000]]) is None


def test_refused_requests_are_no_part_of_a_steady_rate():
    """A quarter of these was."""
    closed = wrk.read_report(
        wrk_output(
            requests=4, bad_statuses=1, took_us=[[100_000, 100_000, 100_000, 100_000]]
        ),
        images=32,
    )

    assert closed.steady_images_per_s == pytest.approx(10 * 32 * 3 / 4)


def test_bodies_of_one_closed_loop_are_of_one_kind(monkeypatch):
    """wrk sends one path and one type; another would be sent wrongly."""
    monkeypatch.setattr(wrk.shutil, "which", lambda _: "wrk")

    with pytest.raises(ValueError, match="one path"):
        wrk.saturate(
            [raw(b"a"), raw(b"b", path="/elsewhere")],
            Target("127.0.0.1", 9),
            connections=1,
            seconds=1,
        )


@pytest.mark.skipif(wrk.shutil.which("wrk") is None, reason="wrk is not installed")
async def test_wrk_rotates_over_the_bodies(tmp_path):
    """Against a real server: every body arrives, in turn."""
    bodies = [raw(b"a"), raw(b"bb"), raw(b"\x00\n\r")]
    async with tiny_server(lambda _: response(200)) as (target, tiny):
        closed = await asyncio.to_thread(
            wrk.saturate, bodies, target, connections=1, seconds=1
        )

    # wrk asks for one request before it starts, and does not send it
    assert tiny.bodies[:6] == [b"bb", b"\x00\n\r", b"a"] * 2
    assert closed.failed == 0
    assert closed.requests_per_s > 0


@pytest.mark.skipif(wrk.shutil.which("wrk") is None, reason="wrk is not installed")
async def test_what_each_request_took_is_noted_where_connections_are_few():
    """So that both ways to count the same load agree, but for its ends."""
    async with tiny_server(lambda _: response(200)) as (target, _):
        closed = await asyncio.to_thread(
            wrk.saturate, [raw(b"a")], target, connections=2, seconds=1
        )

    assert closed.steady_images_per_s == pytest.approx(closed.images_per_s, rel=0.5)
    assert 0 < closed.p50_ms <= closed.p99_ms <= closed.worst_ms


def test_wrk_missing_says_how_to_get_it(monkeypatch):
    """It is no Python package."""
    monkeypatch.setattr(wrk.shutil, "which", lambda _: None)

    with pytest.raises(wrk.WrkError, match="apt-get install wrk"):
        wrk.saturate([raw(b"a")], Target("127.0.0.1", 9), connections=1, seconds=1)


def test_a_server_that_ends_at_once_shows_its_last_words():
    """The reason is in its output, not in ours."""
    with (
        pytest.raises(LaunchError, match=r"ended with 3: .*no bundle"),
        running(
            ["sh", "-c", "echo no bundle; exit 3"],
            {},
            port=free_port(),
            probe=raw(b""),
        ),
    ):
        pass


def test_a_server_is_ended_with_its_children():
    """Also those that its shell would leave behind."""
    port = free_port()
    command = ["sh", "-c", f'python3 -c "$0" {port}; true', SERVER]

    with running(command, {}, port=port, probe=raw(b"")) as (_, process):
        (child,) = [os.pidfd_open(pid) for pid in descendants(process.pid)]

    ended = select.poll()  # a pidfd becomes readable when its process ends
    ended.register(child, select.POLLIN)
    assert ended.poll(30_000)
    os.close(child)


def test_the_best_prediction_is_found_in_every_wrapping():
    """BentoML answers a list of one."""
    answer = {"predictions": [{"label": "cat", "index": 4, "score": 0.5}]}

    assert best_prediction(answer) == best_prediction([answer]) == (4, 0.5)
    assert best_prediction({"predictions": []}) == (-1, 0.0)  # it abstained


def test_an_arrangement_reaches_the_server_unchanged(tmp_path, monkeypatch):
    """Through the one channel that all frameworks' workers share."""
    arrangement = Arrangement(processes=2, threads=1, batch=4, tuned=True)
    served = Served(tmp_path, "fp32", 1234, arrangement)
    for name, value in served.environment().items():
        monkeypatch.setenv(name, value)

    assert Served.from_environment() == served
    assert str(arrangement) == "processes=2, threads=1, batch=4, tuned=True"


@pytest.mark.parametrize("name", ["photos", "digits"])
def test_every_peer_takes_part_twice(name, data_dir):
    """As documented, and tuned for the workload; nobody else is in the table."""
    listed = contestants(load_workload(name, data=data_dir))

    peers = {c.name for c in documented()}
    assert {c.name for c in listed if c.setting == "tuned"} == peers == set(TUNED[name])
    assert "Linnaeus" in {c.name for c in listed}


def test_nobodys_server_reports_on_us(tmp_path):
    """Telemetry is off in every peer's environment."""
    served = Served(tmp_path / "x/1", "fp32", 1, Arrangement())

    for contestant in documented():
        variables = environment(contestant, served)
        assert {name: variables[name] for name in SILENT} == SILENT


def test_digits_are_pngs_of_28_pixels(data_dir):
    """Real ones, and not all the same."""
    images = read_digits(data_dir, n=10)

    assert len(set(images)) == 10
    assert all(image.startswith(b"\x89PNG") for image in images)


def test_a_workload_without_data_says_where_it_looked(tmp_path):
    """A folder, and the setting that names another."""
    with pytest.raises(FileNotFoundError, match="LINNAEUS_DATA"):
        load_workload("photos", data=tmp_path)


def test_a_copy_without_its_history_is_told_its_commit(monkeypatch):
    """On a GPU host, to which only files travel; an old history there may lie."""
    monkeypatch.setenv("GIT_COMMIT", "c0ffee")

    assert circumstances()["commit"] == "c0ffee"
