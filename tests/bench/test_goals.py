"""records → goal table."""

import json

import pytest

from bench.circumstances import RESULTS
from bench.goals import (
    GOALS,
    at_least,
    at_most,
    digits,
    fairness,
    judge,
    main,
    overload,
    photos,
    soak,
)
from bench.peers import report
from bench.peers.comparison import Standing


def standing(name, setting, precision, *rates):
    """A contestant with a rate a round."""
    rounds = [
        {
            "requests_per_s": rate,
            "p50_ms": 1000 / rate,
            "p99_ms": 2000 / rate,
            "failed": 0,
            "cores": 1.8,
            "memory_mb": 100,
        }
        for rate in rates
    ]
    return Standing(name, setting, precision, "defaults", rounds)


def limit(precision, *rates):
    """The in-process limit of a precision."""
    rounds = [{"requests_per_s": rate} for rate in rates]
    return Standing(report.LIMIT, precision, precision, "two workers", rounds)


PHOTOS = report.rows(
    [
        limit("fp32", 250.0, 250.0, 250.0),
        limit("auto", 400.0, 400.0, 400.0),
        standing("Linnaeus", "fp32", "fp32", 200, 240, 230),
        standing("Linnaeus", "auto", "auto", 380, 380, 380),
        standing("Mosec", "documented", "fp32", 146, 146, 146),
        standing("Mosec", "tuned", "fp32", 220, 220, 220),
        standing("FastAPI", "documented", "fp32", 115, 115, 115),
    ]
)


def test_a_contestant_counts_by_the_median_of_its_rounds():
    """One lucky round is not its speed."""
    row = report.find(PHOTOS, "Linnaeus", "fp32")

    assert row["requests_per_s"] == 230


def test_goals_are_ratios_within_one_comparison():
    """To the limit of the same precision, and to the best peer of a setting."""
    record = {"rows": PHOTOS, "auto": "int8"}

    measured = {verdict.goal: verdict.measured for verdict in photos(record)}

    assert measured["Lite0 fp32, of the in-process limit"] == pytest.approx(230 / 250)
    assert measured["Lite0 fp32, x best documented peer"] == pytest.approx(230 / 146)
    assert measured["Lite0 fp32, x best tuned peer"] == pytest.approx(230 / 220)
    assert measured["Lite0 int8, x our fp32"] == pytest.approx(380 / 230)
    assert measured["Lite0 p99, x best peer's"] == pytest.approx(220 / 230)


def test_a_goal_that_the_machine_itself_cannot_reach_is_told_apart():
    """Half again a peer's rate is no fault of ours where the limit is below that."""
    rows = report.rows(
        [
            limit("fp32", 164.0),
            standing("Linnaeus", "fp32", "fp32", 160),
            standing("FastAPI", "documented", "fp32", 116),
        ]
    )

    verdicts = {verdict.goal: verdict for verdict in photos({"rows": rows})}
    far = verdicts["Lite0 fp32, x best documented peer"]

    assert (far.passed, far.beyond) == (False, True)
    assert "beyond the limit found here, 1.41" in str(far)
    assert not at_least("a", 1.5, 1.2, 1.6).beyond  # the limit reaches it: a failure
    assert not at_least("a", 1.5, 1.2, [1.2, 1.4, 1.6]).beyond  # in one round


def test_a_peer_that_failed_is_not_the_best():
    """It stays in the table, without a rate."""
    broken = Standing("Mosec", "tuned", "fp32", "defaults", failure="did not start")
    rows = report.rows([standing("Linnaeus", "fp32", "fp32", 9000), broken])

    passed = {verdict.goal: verdict.passed for verdict in digits({"rows": rows})}
    assert passed.pop("LeNet, cores at work")
    assert set(passed.values()) == {None}
    assert "failed" in report.markdown("digits", rows)


def test_the_table_has_a_line_for_each_contestant_fastest_first():
    """With its share of the limit, and how far the rounds of a ratio lie apart."""
    lines = report.markdown("photos", PHOTOS).splitlines()

    assert lines[4].startswith(
        "| in-process limit | auto | 400.0 | 1.00 | 0.57 (0.50 to 0.60) |"
    )
    assert (
        "| Linnaeus | fp32 | 230.0 | 0.92 (0.80 to 0.96) | 1.00 "
        "| 4.3 | 8.7 | 0 | 1.8 | 100 |"
    ) in lines


def test_a_ratio_is_taken_within_a_round():
    """What slows the machine for a whole round slows both, and says nothing."""
    rows = report.rows(
        [
            standing("Linnaeus", "fp32", "fp32", 100, 200, 300),
            standing("Mosec", "tuned", "fp32", 50, 100, 150),
        ]
    )
    verdicts = {verdict.goal: verdict for verdict in digits({"rows": rows})}

    assert verdicts["LeNet, x Mosec tuned"].rounds == (2, 2, 2)


@pytest.mark.parametrize(
    ("rounds", "word"),
    [
        ((1.0, 1.02, 1.03), "pass"),
        ((0.99, 1.02, 1.03), "pass, within the noise"),
        ((0.9, 0.99, 1.1), "**fail**, within the noise"),
        ((0.9, 0.98, 0.99), "**fail**"),
        ((1.02,), "pass"),
    ],
)
def test_a_goal_between_the_rounds_is_within_the_noise(rounds, word):
    """The median decides, and the verdict says how little that means."""
    assert at_least("a", 1.0, rounds).word == word


def test_a_verdict_shows_how_far_its_rounds_lie_apart():
    """One of a single turn has nothing to show."""
    several, one = at_most("a", 2, [1.5, 1.9, 1.25]), at_most("a", 2, 1.5)

    assert str(several) == "| a | <= 2 | 1.5 (1.25 to 1.9) | pass |"
    assert str(one) == "| a | <= 2 | 1.5 | pass |"


def overloaded(of_capacity, **statuses):
    """One turn of an overload."""
    return {
        "of_capacity": of_capacity,
        "summary": {
            "statuses": statuses,
            "late": 0,
            "retry_after": {"share_right": 1.0},
        },
    }


def test_an_overload_counts_every_round():
    """The median of its ratios, and each answer that was none."""
    good, bad = {"200": 90, "503": 200}, {"200": 90, "503": 199, "504": 1}
    rounds = [overloaded(0.8, **good), overloaded(0.91, **bad), overloaded(1, **good)]

    verdicts = overload({"rounds": rounds})

    assert [v.measured for v in verdicts] == [0.91, 0, 1, 1]
    assert verdicts[0].word == "pass, within the noise"


def test_a_record_of_one_turn_is_read_as_one_round():
    """The series before were measured so."""
    (goodput, *_) = overload(overloaded(0.905, **{"200": 90}))

    assert goodput.rounds == (0.905,)


def test_a_plot_is_drawn(tmp_path):
    """A picture of some size, with every name that was measured."""
    pytest.importorskip("matplotlib")

    report.plot("photos", PHOTOS, tmp_path / "photos.png")

    assert (tmp_path / "photos.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_measured_is_neither_pass_nor_fail():
    """And the command that prints it does not succeed."""
    verdicts = [verdict for goals in GOALS.values() for verdict in goals({})]

    assert {verdict.passed for verdict in verdicts} == {None}


def test_the_command_fails_until_every_goal_is_met(tmp_path, capsys):
    """An empty folder has met none."""
    assert main(["--results", str(tmp_path)]) == 1
    assert "not yet measured" in capsys.readouterr().out


def test_records_are_read_by_their_names(tmp_path):
    """What `bench.lone` wrote is judged as the lone request."""
    record = {"rounds": {"lone_ms": [11.0], "in_process_ms": [19.0]}}
    (tmp_path / "lone.json").write_text(json.dumps(record))

    measured = {v.goal: v.measured for v in judge(tmp_path)}

    assert measured["lone request, of 1.1 x (decode + run + 1 ms)"] == 0.5


@pytest.mark.parametrize(
    ("verdict", "passed"),
    [
        (at_least("a", 2, 2.0), True),
        (at_least("a", 2, 1.99), False),
        (at_most("a", 0, 0), True),
        (at_most("a", 0, 1), False),
    ],
)
def test_a_bound_includes_itself(verdict, passed):
    """0.9 of capacity is met by 0.9."""
    assert verdict.passed is passed


def soaked(**outcomes):
    """A record of a soak that is flat."""
    endings = {name.replace("_", " "): n for name, n in outcomes.items()}
    return {
        "requests": 200_000,
        "outcomes": endings,
        "rss_spread": 0.01,
        "no_leaks": True,
    }


def test_a_leak_fails_the_soak():
    """It is a count: none is allowed."""
    record = soaked(raw_200=200_000) | {"no_leaks": False}

    assert [verdict.passed for verdict in soak(record)] == [True, True, True, False]


@pytest.mark.parametrize(
    "ending", ["raw_500", "batch_503", "broken_200", "photo_TimeoutError"]
)
def test_a_soak_in_which_anything_ends_otherwise_than_it_should_fails(ending):
    """A service that refuses everything keeps its memory flat."""
    record = soaked(raw_200=199_999, **{ending: 1})

    assert [verdict.passed for verdict in soak(record)] == [True, False, True, True]


def test_a_soak_is_as_long_as_what_it_has_counted():
    """Not as long as it was asked to be."""
    record = soaked(raw_200=150_000, left=6_000)

    assert soak(record)[0].measured == 156_000
    assert not soak(record)[0].passed


@pytest.mark.parametrize("load", ["alone", "beside_batches"])
def test_singles_that_are_not_answered_fail_the_fairness(load):
    """The p99 is over those that were: refusing the slow ones would better it."""
    record = {
        "batches_to_singles": 1.1,
        "alone": {"statuses": {"200": 400}},
        "beside_batches": {"statuses": {"200": 400}},
        "p99_ratio": 1.5,
        "failed": 0,
    }
    before = [verdict.passed for verdict in fairness(record)]
    record[load] = {"statuses": {"200": 399, "503": 1}}

    assert before == [True] * 4
    assert [verdict.passed for verdict in fairness(record)] == [True, True, False, True]


def test_batches_that_fail_fail_the_fairness():
    """A record that does not say so has not measured it."""
    assert [verdict.passed for verdict in fairness({"failed": 1})][-1] is False
    assert [verdict.passed for verdict in fairness({"p99_ratio": 1.5})][-1] is None


def test_the_records_of_the_project_say_how_requests_ended():
    """So that what they hold is judged."""
    measured = {verdict.goal: verdict.measured for verdict in judge(RESULTS)}

    assert measured["soak: requests"] == 200_000
    assert measured["soak: endings that were not due"] == 0
    assert measured["singles at a modest rate: not 200"] == 0
