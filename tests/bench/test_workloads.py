"""What is sent, and to which bundle: the workload's own, or somebody else's."""

import subprocess
import sys

import pytest

from bench import __main__ as series
from bench import dialects, fairness, limit, lone, overload, processor, soak
from bench.workloads import MOST_BYTES, MOST_IMAGES, load_workload, read_images
from tests.synthetic import make_bundle, png

SERVING = (dialects, fairness, limit, lone, overload, processor, soak)


@pytest.fixture
def folder(tmp_path):
    """Two images below it, and what is none."""
    (tmp_path / "images/deep").mkdir(parents=True)
    (tmp_path / "images/a.png").write_bytes(png((1, 1, 1)))
    (tmp_path / "images/deep/b.PNG").write_bytes(png((2, 2, 2)))
    (tmp_path / "images/labels.csv").write_text("no image")
    return tmp_path / "images"


def test_other_images_go_to_another_bundle(folder, tmp_path):
    """Without the data sets of the workload; its connections stay."""
    workload = load_workload("digits", images=folder, models=tmp_path, model="mine")

    assert workload.images == (png((1, 1, 1)), png((2, 2, 2)))
    assert workload.bundle == tmp_path / "mine"
    assert workload.connections == 64
    assert workload.described()["model"] == "mine"
    assert workload.described()["images"] == 2


def test_of_a_large_folder_some_are_sent(tmp_path):
    """From all over it: the load client holds each several times."""
    for number in range(MOST_IMAGES + 1):
        (tmp_path / f"{number:03}.png").write_bytes(bytes([number % 256]))
    few = read_images(tmp_path)
    (tmp_path / "zzz.png").write_bytes(bytes(2 * MOST_BYTES))

    assert MOST_IMAGES / 2 <= len(few) <= MOST_IMAGES
    assert len(read_images(tmp_path)) < len(few)


def test_a_folder_without_images_is_named(tmp_path):
    """Instead of a load of nothing."""
    with pytest.raises(FileNotFoundError, match="no images in"):
        read_images(tmp_path)


@pytest.mark.parametrize("module", SERVING, ids=lambda module: module.__name__)
def test_every_command_takes_other_images_and_another_bundle(
    module, folder, tmp_path, capsys
):
    """Under the same names. Here the bundle is missing, which is said in a line."""
    code = (
        "import sys\nfrom bench.ending import command\n"
        f"from {module.__name__} import main\nsys.exit(command(main))"
    )
    options = ["--images", folder, "--models", tmp_path, "--model", "mine"]

    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, options)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2
    assert f"{tmp_path}/mine is no bundle" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--rounds", "--seconds"])
def test_nothing_is_measured_for_no_time_or_no_round(option, capsys):
    """Said before a server is started."""
    with pytest.raises(SystemExit):
        lone.main([option, "0"])

    assert f"argument {option}" in capsys.readouterr().err


def test_a_command_tried_by_itself_writes_over_no_record(
    folder, tmp_path, monkeypatch, capsys
):
    """A record of two seconds would pass for the one of this commit and machine."""
    make_bundle(tmp_path, "mine")
    written = []
    monkeypatch.setattr(
        "bench.lone.write_record", lambda *record: written.append(record)
    )
    monkeypatch.setattr("bench.lone.measure", lambda *_: {})
    options = ["--images", str(folder), "--models", str(tmp_path), "--model", "mine"]

    assert lone.main(options) == 0
    assert written == []


@pytest.mark.parametrize("piece", series.PIECES, ids=lambda piece: piece.name)
def test_the_series_says_where_each_record_goes(piece):
    """Its commands have no file of their own choice."""
    option, path = piece.record()

    assert option in {"--json", "--out"}
    assert path in {"docs/results", f"docs/results/{piece.name}.json"}
