"""Ctrl-C or SIGTERM in the middle of a load: every process of it ends with it."""

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from tests.bench.tiny_server import response, tiny_server
from tests.synthetic import make_bundle

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")

PATIENCE_S = 20.0

DECODING = """
import sys
from pathlib import Path
from bench.ending import command
from bench.pipelines import Pipeline, Trial, measure
from tests.synthetic import png

class Loud:
    def run(self, batch):
        print('began', flush=True)

if __name__ == '__main__':
    Trial.load_model = lambda self: Loud()
    ahead = Pipeline('processes', 'ahead', workers=2, threads=1, batch=2)
    trial = Trial(ahead, Path(sys.argv[1]), 'fp32', [png((9, 9, 9))] * 4, 60.0)
    sys.exit(command(lambda: measure(trial)))
"""

SENDING = """
import sys
from bench.bodies import raw
from bench.client import Target
from bench.crowd import offer_together
from bench.ending import command
from bench.traffic import Load, constant_arrivals

if __name__ == '__main__':
    load = Load(constant_arrivals(50, 60.0), [raw(b'a')], connections=4)
    target = Target('127.0.0.1', int(sys.argv[1]))
    sys.exit(command(lambda: offer_together(load, target, processes=2)))
"""


async def start(tmp_path, repository, code, argument):
    """Run a script as a terminal does: with a process group of its own."""
    script = tmp_path / "script.py"  # spawned processes import it again
    script.write_text(code)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        script,
        str(argument),
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )


async def end(process, by):
    """Press Ctrl-C, or terminate the first; True if all of the group ended in time."""
    if by == signal.SIGINT:
        os.killpg(process.pid, by)
    else:
        process.send_signal(by)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await process.stdout.read()  # ends when nobody can write to it any more
            await process.wait()
    except TimeoutError:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return True


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
async def test_decoders_ahead_end_with_their_measurement(tmp_path, repository, by):
    """None of them waits for work that nobody sends."""
    bundle = make_bundle(tmp_path / "models")
    process = await start(tmp_path, repository, DECODING, bundle)

    assert await process.stdout.readline() == b"began\n"
    assert await end(process, by)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
async def test_clients_end_with_their_measurement(tmp_path, repository, by):
    """At once, and not when their load is over."""
    arrived = asyncio.Event()

    def answer(_):
        arrived.set()
        return response(200)

    async with tiny_server(answer) as (target, _):
        process = await start(tmp_path, repository, SENDING, target.port)
        await arrived.wait()
        ended = await end(process, by)

    assert ended
