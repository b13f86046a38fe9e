"""measured rounds → **verdict**: one goal, met or not, and whether the noise decides.

The median of the rounds decides. With the bound between their least and their most, the
verdict says that it is within the noise.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.rounds import describe

Measured = float | Sequence[float] | None  # one figure, or one a round


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal against its measurement."""

    goal: str
    least: float | None  # the measured value must be at least this ...
    most: float | None  # ... and at most this
    rounds: tuple[float, ...]  # what was measured, in each round; () if it was not
    ceiling: tuple[float, ...] = ()  # what the in-process limit would have measured

    @property
    def measured(self) -> float | None:
        """The median of the rounds."""
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def passed(self) -> bool | None:
        """None: not yet measured."""
        return None if self.measured is None else self._meets(self.measured)

    @property
    def noisy(self) -> bool:
        """Whether some rounds meet the goal and others do not."""
        return len({self._meets(value) for value in self.rounds}) > 1

    def _meets(self, value: float) -> bool:
        enough = self.least is None or value >= self.least
        return enough and (self.most is None or value <= self.most)

    @property
    def beyond(self) -> bool:
        """Whether it is not met, and the in-process limit never was there either."""
        unreachable = (
            self.least is not None
            and bool(self.ceiling)
            and max(self.ceiling) < self.least
        )
        return self.passed is False and unreachable

    @property
    def word(self) -> str:
        """The judgment."""
        if self.passed is None:
            return "-"
        if self.passed:
            word = "pass"
        elif self.beyond:
            word = f"beyond the limit found here, {statistics.median(self.ceiling):.3g}"
        else:
            word = "**fail**"
        return f"{word}, within the noise" if self.noisy else word

    def __str__(self) -> str:
        bound = f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"
        found = describe(self.rounds) if self.rounds else "not yet measured"
        return f"| {self.goal} | {bound} | {found} | {self.word} |"


def at_least(
    goal: str, least: float, measured: Measured, ceiling: Measured = None
) -> Verdict:
    """A goal that is a floor."""
    return Verdict(goal, least, None, _rounds(measured), _rounds(ceiling))


def at_most(goal: str, most: float, measured: Measured) -> Verdict:
    """A goal that is a ceiling."""
    return Verdict(goal, None, most, _rounds(measured))


def _rounds(measured: Measured) -> tuple[float, ...]:
    if measured is None:
        return ()
    return tuple(measured) if isinstance(measured, Sequence) else (measured,)
