"""A search hands its winners to a comparison."""

import json

import pytest

from bench.ending import MeasurementError
from bench.peers import tune
from bench.peers.__main__ import chosen, main, read_arguments
from bench.peers.arrangement import Arrangement
from bench.peers.catalog import TUNED, contestants
from bench.peers.winners import read_winners
from bench.workloads import Workload
from tests.synthetic import png

WINNER = Arrangement(processes=2, threads=1, batch=16, wait_ms=10, tuned=True)


@pytest.fixture
def workload(tmp_path):
    return Workload("digits", (b"",), tmp_path / "models" / "mine", 64)


@pytest.fixture
def searched(tmp_path, workload, monkeypatch):
    """The record of a search for Mosec in which `WINNER` was the fastest."""

    def one_round(_, contestant):
        fastest = contestant.arrangement == WINNER
        return {"requests_per_s": 20.0 if fastest else 10.0, "p99_ms": 1.0}

    monkeypatch.setattr(tune, "one_round", one_round)
    monkeypatch.setattr(tune, "is_installed", lambda: True)
    monkeypatch.setattr(tune, "available_cores", lambda: 2)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "any.png").write_bytes(png((1, 2, 3)))
    record = tmp_path / "tuned.json"
    given = {
        "--workload": workload.name,
        "--only": "Mosec",
        "--images": tmp_path / "images",
        "--models": workload.bundle.parent,
        "--model": workload.bundle.name,
        "--json": record,
    }
    assert tune.main([str(word) for option in given.items() for word in option]) == 0
    return record


def test_the_fastest_arrangement_takes_part(searched, workload):
    """The peers that were not searched for keep the catalog's."""
    options = read_arguments(["--tuned", str(searched), "--setting", "tuned"])

    found = {each.name: each.arrangement for each in chosen(options, workload)}

    assert found["Mosec"] == WINNER
    catalog = {
        each.name: each.arrangement
        for each in contestants(workload)
        if each.setting == "tuned"
    }
    assert found == {**catalog, "Mosec": WINNER}
    assert set(found) == set(TUNED["digits"])


def test_a_peer_of_which_nothing_ran_keeps_the_catalogs(searched, workload):
    record = json.loads(searched.read_text())
    record["tuning"]["BentoML"] = []
    searched.write_text(json.dumps(record))

    assert read_winners([searched], workload) == {"Mosec": WINNER}


def test_winners_of_another_model_do_not_count(searched, tmp_path):
    """What is best for a small network may be worst for a large one."""
    other = Workload("digits", (b"",), tmp_path / "models" / "other", 64)

    with pytest.raises(
        MeasurementError, match=r"digits with other; .*digits with mine"
    ):
        read_winners([searched], other)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"workload": "digits", "model": "mine", "tuning": {"Mosec": [{}]}}',
        '{"workload": "digits", "model": "mine", "tuning": {"Mosec": 5}}',
        '{"workload": "digits", "model": "mine", '
        '"tuning": {"Mosec": [{"arranged": {"wheels": 4}}]}}',
        '{"tuning": {}}',
    ],
)
def test_what_is_no_record_of_a_search_is_named(text, tmp_path, workload):
    record = tmp_path / "tuned.json"
    record.write_text(text)

    with pytest.raises(MeasurementError, match=r"tuned\.json is no record of bench"):
        read_winners([record], workload)


def test_a_record_that_is_not_there_is_named(tmp_path, workload):
    with pytest.raises(MeasurementError, match=r"none\.json is no record"):
        read_winners([tmp_path / "none.json"], workload)


def test_without_a_search_the_catalog_says_how(workload):
    assert read_winners([], workload) == {}


def test_a_search_for_one_load_is_refused_before_another_is_compared(
    searched, workload, monkeypatch
):
    """Photos would have taken a quarter of an hour until digits were refused."""
    monkeypatch.setattr("bench.peers.__main__.is_installed", lambda: True)
    images = searched.parent / "images"
    asked = ["--workload", workload.name, "photos", "--tuned", searched]
    asked += ["--images", images, "--models", workload.bundle.parent]
    compared = []
    monkeypatch.setattr("bench.peers.__main__.run", lambda *work: compared.append(work))

    with pytest.raises(MeasurementError, match="found for photos with mine"):
        main([str(word) for word in [*asked, "--model", workload.bundle.name]])

    assert not compared
