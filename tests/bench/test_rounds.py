"""turns → rounds."""

from math import isnan, nan

import pytest

from bench.rounds import describe, medians, rotated


def test_each_round_begins_with_another_turn():
    """Every turn is taken once in each, and in three rounds stands in three places."""
    rounds = [rotated("abcdef", number * 6 // 3) for number in range(3)]

    assert ["".join(turns) for turns in rounds] == ["abcdef", "cdefab", "efabcd"]


def test_more_rounds_than_turns_go_round():
    """Of two, every other round begins with the second; none stay none."""
    assert [rotated("ab", number)[0] for number in range(4)] == ["a", "b", "a", "b"]
    assert rotated("", 1) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, 1.3, 1.1], "1.10 (1.00 to 1.30)"),
        ([1.1], "1.10"),
        ([1.1, 1.1], "1.10"),
        ([], "-"),
    ],
)
def test_a_median_is_told_with_its_spread(values, said):
    """Where there is one."""
    assert describe(values, ".2f") == said


def test_medians_are_of_each_key_by_itself():
    """They need not be of the same round."""
    rounds = [{"a": 1, "b": 9}, {"a": 2, "b": 8}, {"a": 3, "b": 10}]

    assert medians(rounds, ["a", "b"]) == {"a": 2, "b": 9}


def test_a_round_without_a_number_is_no_part_of_a_median():
    """NaN is neither less nor more than any: where it stood decided what came out."""
    rounds = [{"a": 3.0, "b": nan}, {"a": nan, "b": nan}, {"a": 1.0, "b": nan}]

    found = medians(rounds, ["a", "b"])

    assert found["a"] == 2
    assert isnan(found["b"])
