"""One command makes every record, and goes on where it broke off."""

import re

import pytest

import bench.__main__ as series
from bench.circumstances import write_record
from bench.goals import GOALS


def test_every_goal_has_a_piece_that_measures_it():
    """Otherwise it would stay unmeasured for ever."""
    assert set(GOALS) <= {piece.name for piece in series.PIECES}


def test_the_page_says_which_records_one_command_makes(repository):
    """Those that it names as files; the other commands are run one by one."""
    page = (repository / "docs/benchmarks.md").read_text()
    rows = re.findall(r"^\| `python -m (bench[\w.]*).*` \| .* \| (.*) \|$", page, re.M)

    made = {
        (module, name)
        for module, record in rows
        for name in re.findall(r"`([\w-]+)\.json`", record)
    }

    assert made == {(piece.module, piece.name) for piece in series.PIECES}


@pytest.mark.parametrize(
    ("commit", "record", "fresh"),
    [
        ("abc", {}, True),
        ("abc", {"commit": "another"}, False),
        ("abc", {"machine": "another"}, False),
        ("abc", {"whole": False}, False),  # a comparison that broke off
        ("abc+changes", {}, False),  # the same words for other changes
        ("unknown", {}, False),
    ],
)
def test_a_whole_record_of_this_commit_and_machine_is_not_made_again(
    tmp_path, monkeypatch, commit, record, fresh
):
    """Any other is."""
    monkeypatch.setenv("GIT_COMMIT", commit)
    piece = series.Piece("lone", "bench.lone")
    assert not piece.is_fresh(tmp_path)

    write_record(tmp_path / "lone.json", record)

    assert piece.is_fresh(tmp_path) is fresh


@pytest.mark.parametrize(("code", "expected"), [(0, []), (3, ["broken"])])
def test_a_piece_that_fails_is_told_and_the_others_go_on(
    tmp_path, monkeypatch, capsys, code, expected
):
    """A series of half an hour is not lost to one of them."""
    (tmp_path / "broken.py").write_text(f"raise SystemExit({code})")
    (tmp_path / "after.py").write_text("print('came after', flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(series, "RESULTS", tmp_path)
    pieces = tuple(series.Piece(name, name) for name in ("broken", "after"))
    monkeypatch.setattr(series, "PIECES", pieces)

    status = series.main([])

    said = capsys.readouterr()
    assert status == 1  # the goals are not met in either case
    assert said.err.count("failed: broken") == len(expected)
    assert "--- after:" in said.out
