"""error or signal → ending: nothing is left behind, and a person reads one line."""

import os
import select
import signal
import subprocess
import sys

import pytest

from bench.ending import MeasurementError, command
from classifier.errors import BundleError
from tests.bench.test_records import SERVER

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")

MEASUREMENT = f"""
import signal
from bench.bodies import raw
from bench.launch import free_port, running
port = free_port()
command = ['python3', '-c', {SERVER!r}, str(port)]
with running(command, {{}}, port=port, probe=raw(b'')) as (_, process):
    print(process.pid, flush=True)
    signal.pause()
"""

# A piece of a series that has a server to stop, and the series around it.
PIECE = """
import signal, sys, time
from bench.ending import ended_by_signals
with ended_by_signals():
    try:
        print('began', flush=True)
        signal.pause()
    finally:
        time.sleep(0.7)
        print('stopped', flush=True)
"""
SERIES = """
from bench.__main__ import Piece
from bench.ending import command
command(Piece('x', 'piece').run)
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_measurement_that_is_told_to_end_stops_its_server(repository, ending):
    """Also by the terminal that is closed: nobody would know of the server."""
    with subprocess.Popen(
        [sys.executable, "-c", MEASUREMENT],
        cwd=repository,
        stdout=subprocess.PIPE,
        text=True,
    ) as measurement:
        server = os.pidfd_open(int(measurement.stdout.readline()))
        measurement.send_signal(ending)

    assert measurement.returncode == 128 + ending
    assert select.select([server], [], [], 30)[0]
    os.close(server)


def test_under_nohup_a_closed_terminal_ends_nothing(repository):
    """What is ignored stays ignored."""
    code = "import os, signal\nfrom bench.ending import ended_by_signals\n"
    code += "with ended_by_signals():\n    os.kill(os.getpid(), signal.SIGHUP)\n"
    script = f'trap "" HUP; exec {sys.executable} -c "$0"'

    done = subprocess.run(["sh", "-c", script, code], cwd=repository, check=False)

    assert done.returncode == 0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_series_waits_until_its_piece_has_stopped_its_servers(
    repository, tmp_path, ending
):
    """Ctrl-C reaches both, SIGTERM the series alone; a server takes seconds to stop."""
    (tmp_path / "piece.py").write_text(PIECE)
    with subprocess.Popen(
        [sys.executable, "-c", SERIES],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{repository}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as series:
        assert series.stdout.readline() == "began\n"
        if ending == signal.SIGINT:
            os.killpg(series.pid, ending)
        else:
            series.send_signal(ending)
        said = series.stdout.read()

    assert said == "stopped\n"


@pytest.mark.parametrize(
    "error",
    [MeasurementError("wrk is not installed"), BundleError("x"), FileNotFoundError()],
)
def test_what_cannot_be_measured_is_said_in_a_line(error, capsys):
    """A traceback would hide it."""

    def main():
        raise error

    assert command(main) == 2
    assert capsys.readouterr().err == f"{error}\n"


def test_ctrl_c_is_no_traceback(capsys):
    """It has the exit code that shells know."""

    def main():
        raise KeyboardInterrupt

    assert command(main) == 130
    assert capsys.readouterr().err == "interrupted\n"
