"""turns → **rounds**: what is measured several times, and what its spread says.

A machine drifts over minutes, so whatever is compared takes turns, and a ratio is taken
within a round. The median of the rounds counts; the least and the most of them stand
beside it. They enclose the true median with a probability of 1 - 2 (1/2)^n: 75 % for
three rounds, 94 % for five (the sign test's interval).
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Turn = TypeVar("Turn")


def rotated(turns: Iterable[Turn], by: int) -> list[Turn]:
    """The turns in the same order, from another one on: nobody is always the first."""
    listed = list(turns)
    start = by % len(listed) if listed else 0
    return [*listed[start:], *listed[:start]]


def medians(rounds: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> dict[str, Any]:
    """The median of the rounds for each of some keys.

    A round that has no number there (NaN: nothing was refused, say) is left out; NaN
    where none has.
    """
    known = {
        key: [found[key] for found in rounds if not math.isnan(found[key])]
        for key in keys
    }
    return {
        key: statistics.median(values) if values else math.nan
        for key, values in known.items()
    }


def describe(values: Sequence[float], form: str = ".3g") -> str:
    """The median, and where the rounds differ their least and most.

    "1.02 (1.00 to 1.05)" in the format `form`; a dash where nothing was measured.
    """
    if not values:
        return "-"
    middle = f"{statistics.median(values):{form}}"
    if min(values) == max(values):
        return middle
    return f"{middle} ({min(values):{form}} to {max(values):{form}})"
