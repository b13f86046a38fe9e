"""A file is there whole or not at all, and a refusing disk is named."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.powerless import powerless
from tests.training.disks import full_above
from training.errors import DiskError
from training.files import make_folder, try_file, try_folder, whole, write_whole


def test_text_and_bytes_are_written_with_the_folders_above_them(tmp_path):
    """And nothing else is left there."""
    write_whole(tmp_path / "a" / "b.txt", "weiß")
    write_whole(tmp_path / "a" / "c.bin", b"\x00\xff")

    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "weiß"
    assert (tmp_path / "a" / "c.bin").read_bytes() == b"\x00\xff"
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.mark.parametrize("folder", [".", "models", "models/photos"])
def test_a_place_is_tried_and_left_as_it_was(tmp_path, monkeypatch, folder):
    """With nothing made on the way there, also where it is named from here."""
    monkeypatch.chdir(tmp_path)
    for place in (Path(folder), tmp_path / folder):
        try_folder(place)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_file_before_it(tmp_path):
    """With its path, the reason and the room that is left in the message."""
    path = tmp_path / "a.txt"
    write_whole(path, "before")

    with full_above(1000), pytest.raises(DiskError, match=r"a\.txt.*bytes are free"):
        write_whole(path, "x" * 10_000)

    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_the_room_is_counted_while_the_half_file_takes_its_part(tmp_path, monkeypatch):
    """Else a full disk would be said to have room for what did not fit."""
    there = []

    def usage(folder):
        there.extend(file.name for file in folder.iterdir())
        return SimpleNamespace(free=0)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with full_above(1000), pytest.raises(DiskError, match="0 bytes are free there"):
        write_whole(tmp_path / "a.txt", "x" * 10_000)

    assert [name.startswith("a.txt.") for name in there] == [True]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writer_leaves_the_file_before_it(tmp_path):
    """Whatever ended it."""
    path = tmp_path / "a.txt"
    write_whole(path, "before")

    def write_half() -> None:
        with whole(path) as partial:
            partial.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()

    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """Two runs compute the same features; the one that ends last leaves its own."""
    path = tmp_path / "a.txt"

    with whole(path) as first, whole(path) as second:
        first.write_text("the first, which ends last")
        second.write_text("the second")

    assert path.read_text() == "the first, which ends last"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_in_the_place_of_a_folder_is_an_error_that_names_it(tmp_path):
    """For the file below it and for the folder itself."""
    (tmp_path / "a").write_text("")

    with pytest.raises(DiskError, match=r"a/b\.txt"):
        write_whole(tmp_path / "a" / "b.txt", "")
    with pytest.raises(DiskError, match="cannot make the folder"):
        make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize("place", [".", "/", "models"])
def test_a_folder_in_the_place_of_a_file_is_refused_when_it_is_tried(
    tmp_path, monkeypatch, place
):
    """And not after the work whose results go there; `.` has no name to write to."""
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()

    for write in (try_file, lambda path: write_whole(path, "")):
        with pytest.raises(DiskError, match=f"cannot write {place}: it is a folder"):
            write(Path(place))
    assert [file.name for file in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize("tried", [try_file, try_folder])
def test_a_place_that_may_not_be_looked_at_is_refused_when_it_is_tried(volume, tried):
    """It is in the folder of somebody else."""
    (volume / "theirs").mkdir(mode=0)
    place = volume / "theirs" / "models" / "photos"

    with powerless(), pytest.raises(DiskError, match=f"cannot write {place}: .*denied"):
        tried(place)


def test_where_output_goes_is_written_to_and_not_replaced():
    """Also where a shell has led it into a file; root would break it for everyone."""
    code = "from training.files import *; write_whole(Path('/dev/stdout'), 'all of it')"
    with tempfile.TemporaryFile() as file:
        subprocess.run((sys.executable, "-c", code), stdout=file, check=True)
        file.seek(0)

        assert file.read() == b"all of it"
    assert Path("/dev/stdout").is_symlink()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    """As `/dev/null` is, in whose place root would put a file for everyone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # waits for nobody

    write_whole(pipe, "all of it")

    assert os.read(reader, 100) == b"all of it"
    os.close(reader)
    assert pipe.is_fifo()
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]
