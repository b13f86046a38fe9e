"""The command line of the load generator."""

import asyncio
import json

import pytest

from bench.load import build_bodies, main, read_arguments
from tests.bench.tiny_server import response, tiny_server


async def command(target, *arguments):
    """Run `python -m bench.load` against a server of this test; its exit code."""
    url = f"http://{target.host}:{target.port}"
    return await asyncio.to_thread(main, [url, "--workload", "digits", *arguments])


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
async def test_an_open_loop_is_offered_and_recorded(arrivals, data_dir, tmp_path):
    """With its circumstances, and every request accounted for."""
    path = tmp_path / "load.json"
    options = ["--rate", "100", "--arrivals", arrivals, "--seconds", "0.3"]

    async with tiny_server(lambda _: response(200)) as (target, tiny):
        code = await command(target, *options, "--json", str(path))

    found = json.loads(path.read_text())["load"]
    assert code == 0
    assert found["statuses"] == {"200": len(tiny.bodies)}
    assert tiny.bodies[0].startswith(b"\x89PNG")


async def test_a_closed_loop_too(data_dir, capsys):
    """It says what it found."""
    options = ["--closed", "--connections", "2", "--seconds", "0.1"]

    async with tiny_server(lambda _: response(200)) as (target, _):
        code = await command(target, *options)

    assert code == 0
    assert "goodput" in capsys.readouterr().out


async def test_a_server_that_refuses_everything_is_no_success(data_dir):
    """The exit code is for scripts."""
    refusal = response(503, "Retry-After: 1")

    async with tiny_server(lambda _: refusal) as (target, _):
        assert await command(target, "--rate", "50", "--seconds", "0.1") == 1


@pytest.mark.parametrize("loops", [[], ["--closed", "--rate", "5"]])
def test_a_load_is_open_or_closed(loops, capsys):
    """Not both, not neither."""
    with pytest.raises(SystemExit):
        read_arguments(["http://127.0.0.1:1", *loops])
    assert "--rate (open loop) or --closed" in capsys.readouterr().err


def test_a_query_goes_with_every_body(data_dir):
    """Such as the model to ask."""
    options = ["http://127.0.0.1:1", "--closed", "--workload", "digits"]

    bodies = build_bodies(
        read_arguments([*options, "--dialect", "batch", "--query", "model=digits"])
    )

    assert {body.path for body in bodies} == {"/classify/batch?model=digits"}
    assert {body.images for body in bodies} == {32}
