"""What happens in a run is written down: as a table, as events, as curves."""

import io
import os
import pty
import sys

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.disks import full_above
from training.errors import DataError, DiskError
from training.loop.bar import open_bar
from training.loop.curves import draw_curves
from training.loop.log import Log, read_log


def write_epochs(folder, count: int, *, first: int = 0, live=None) -> None:
    """Rows for the epochs after `first`, five steps each."""
    log = Log(folder, total_steps=20, first_step=5 * first, live=live)
    for epoch in range(first + 1, first + count + 1):
        row = {"step": 5 * epoch, "epoch": epoch, "train_loss": 1 / epoch}
        log.epoch(row | {"validation_accuracy": epoch / 10})
    log.close()


def test_a_row_is_an_epoch(tmp_path):
    """In numbers that are read back."""
    write_epochs(tmp_path, 2)

    assert read_log(tmp_path / "log.csv")[1] == {
        "step": 10,
        "epoch": 2,
        "train_loss": 0.5,
        "validation_accuracy": 0.2,
    }


def test_rows_that_a_continued_run_repeats_are_there_once(tmp_path):
    """Killed after its third epoch, it goes on from the checkpoint of the second."""
    write_epochs(tmp_path, 3)
    write_epochs(tmp_path, 2, first=2)

    assert [row["epoch"] for row in read_log(tmp_path / "log.csv")] == [1, 2, 3, 4]


def test_rows_that_are_read_back_are_written_as_they_were(tmp_path):
    """A step is a whole number in each row, whoever wrote it."""
    write_epochs(tmp_path / "whole", 3)
    write_epochs(tmp_path / "resumed", 2)
    write_epochs(tmp_path / "resumed", 1, first=2)

    tables = [tmp_path / name / "log.csv" for name in ("resumed", "whole")]
    assert tables[0].read_bytes() == tables[1].read_bytes()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("step,epoch\n5,one\n", "line 2 has 'one' as epoch"),
        ("step,epoch\n5,1\n10,2,3\n", "line 3 has more cells than"),
        ("epoch,loss\n1,0.5\n", "line 2 has no step"),
        ("step,epoch\n5,\n", "line 2 has no epoch"),
        ("step,epoch\n5,\xff\n", "codec can't decode"),
    ],
)
def test_a_table_that_was_edited_is_named_with_what_helps(tmp_path, text, why):
    """A run that goes on would drop or keep the wrong rows."""
    (tmp_path / "log.csv").write_bytes(text.encode("latin-1"))

    with pytest.raises(DataError, match=rf"log\.csv is not as .*{why}.*; .*remove it"):
        write_epochs(tmp_path, 1, first=1)


def test_tensorboard_shows_what_the_table_has(tmp_path):
    """The same figures at the same steps."""
    write_epochs(tmp_path, 3)

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    seen = [(event.step, event.value) for event in events.Scalars("train_loss")]

    rows = read_log(tmp_path / "log.csv")
    assert seen == [(row["step"], pytest.approx(row["train_loss"])) for row in rows]


def test_people_get_a_line_an_epoch_where_there_is_no_terminal(tmp_path):
    """No moving line in a file."""
    said = io.StringIO()

    write_epochs(tmp_path, 2, live=said)

    assert said.getvalue().splitlines()[1] == (
        "step 10  epoch 2  train_loss 0.5  validation_accuracy 0.2"
    )


def test_a_rank_without_a_folder_writes_nothing(tmp_path):
    """Only the first of several processes does."""
    log = Log(None, total_steps=20, first_step=0, live=None)
    log.epoch({"step": 5, "epoch": 1})
    log.close()

    assert list(tmp_path.iterdir()) == []


def test_curves_are_a_picture(tmp_path):
    """Of losses and scores, from the table alone."""
    write_epochs(tmp_path, 3)

    draw_curves(tmp_path / "log.csv", tmp_path / "curves.png")

    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200


def test_without_an_epoch_there_are_no_curves(tmp_path):
    """A run that fits a probe alone has no table, and its page no empty axes."""
    draw_curves(tmp_path / "log.csv", tmp_path / "curves.png")

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_rows_before(tmp_path):
    """The run ends with one line, and the finished epochs are still told of."""
    log = Log(tmp_path, total_steps=20, first_step=0, live=None)
    log.epoch({"step": 5, "epoch": 1})

    with full_above(10), pytest.raises(DiskError, match=r"log\.csv"):
        log.epoch({"step": 10, "epoch": 2})
    log.close()

    assert [row["epoch"] for row in read_log(tmp_path / "log.csv")] == [1]


def test_a_disk_that_is_full_at_the_start_is_one_line(tmp_path, capfd):
    """And no traceback of TensorBoard's thread, which would write the first event."""
    with full_above(10), pytest.raises(DiskError, match=r"cannot write .*tensorboard"):
        Log(tmp_path, total_steps=20, first_step=0, live=None)

    assert "Traceback" not in capfd.readouterr().err


def test_a_file_in_the_place_of_the_events_is_named(tmp_path):
    """It is no folder, and none is made of it."""
    (tmp_path / "tensorboard").write_text("")

    with pytest.raises(DiskError, match="tensorboard"):
        Log(tmp_path, total_steps=20, first_step=0, live=None)


def test_a_line_on_a_terminal_is_shown_as_it_is_written(monkeypatch, capsys):
    """Its brackets and colons are no colors and no emoji; stdout may be a file."""
    terminal, side = pty.openpty()
    with open(side, "w") as live:
        monkeypatch.setattr(sys, "stderr", live)
        bar = open_bar(live, 10)
        bar.say("features of pets [red] [/x] :cat:")
        bar.show(4, "image 4 of 10")
        sys.stdout.write("an answer\n")
        bar.close()
        live.write("end")
        live.flush()
        shown = b""
        while not shown.endswith(b"end"):
            shown += os.read(terminal, 4096)
    os.close(terminal)

    assert b"features of pets [red] [/x] :cat:" in shown
    assert b"4/10" in shown
    assert b"an answer" not in shown
    assert capsys.readouterr().out == "an answer\n"
