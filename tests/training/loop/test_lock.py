"""One training at a time writes to a folder, and a killed one does not keep it."""

import os
import subprocess
import sys
import time
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from training.errors import CheckpointError
from training.loop.distributed import Ranks
from training.loop.lock import LOCK, alone_in

ALONE = Ranks(0, 1, torch.device("cpu"))
HOLDS_IT = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path):
    """The system lets go of it, and nobody has to remove a file."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_IT, str(tmp_path / LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(CheckpointError, match="another training is writing to"),
            alone_in(tmp_path, ALONE),
        ):
            pass
        other.kill()

    with alone_in(tmp_path, ALONE) as certain:
        assert certain


def test_the_lock_ends_with_the_training(tmp_path: Path):
    """Also with one that fails; its file, which stays, refuses nobody."""
    with pytest.raises(KeyboardInterrupt), alone_in(tmp_path, ALONE):
        raise KeyboardInterrupt

    with alone_in(tmp_path, ALONE) as certain:
        assert certain


def load(living: Connection) -> None:
    """Plays a process that loads images, and says that it does."""
    living.send(None)
    time.sleep(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_process_that_loads_images_holds_no_lock(tmp_path: Path):
    """After a kill it lives on for seconds, in which the run is to be started again."""
    lives, living = Pipe(duplex=False)
    with alone_in(tmp_path, ALONE):
        loader = get_context("fork").Process(target=load, args=(living,))
        loader.start()
        lives.recv()
    try:
        with alone_in(tmp_path, ALONE) as certain:
            assert certain
            assert loader.is_alive()
    finally:
        loader.kill()


def test_where_no_lock_can_be_had_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On a disk that refuses it, and on a system that has none."""
    (tmp_path / "refused" / LOCK).mkdir(parents=True)
    with alone_in(tmp_path / "refused", ALONE) as certain:
        assert not certain

    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with alone_in(tmp_path, ALONE) as first, alone_in(tmp_path, ALONE) as second:
        assert (first, second) == (False, False)
