"""records → **goal table**: what was promised, what was measured, passed or not.

Reads what the other commands wrote into `docs/results/`; a goal whose record is not
there is "not yet measured", which is not a pass. A ratio to a peer that even the
in-process limit does not reach here, where nothing is served at all, says so: no server
could meet it on this machine, and the share of the limit is what judges ours.

    python -m bench && python -m bench.goals
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.circumstances import REPOSITORY
from bench.options import command_line
from bench.peers.report import OURS, find, limit_rate

RESULTS = REPOSITORY / "docs/results"

# How each kind of request that `bench.soak` sends should end.
SOAKED = frozenset(
    {
        "raw 200",
        "multipart 200",
        "json 200",
        "photo 200",
        "batch 200",
        "broken 422",
        "left",
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal against its measurement; None where it was not measured."""

    goal: str
    least: float | None  # the measured value must be at least this ...
    most: float | None  # ... and at most this
    measured: float | None
    ceiling: float | None = None  # what the limit of the machine itself would measure

    @property
    def passed(self) -> bool | None:
        """None: not yet measured."""
        if self.measured is None:
            return None
        enough = self.least is None or self.measured >= self.least
        return enough and (self.most is None or self.measured <= self.most)

    @property
    def beyond(self) -> bool:
        """Whether it is not met, and could not be by any server on this machine."""
        unreachable = (
            self.least is not None
            and self.ceiling is not None
            and self.ceiling < self.least
        )
        return self.passed is False and unreachable

    @property
    def word(self) -> str:
        """The judgment."""
        if self.passed is None:
            return "-"
        if self.passed:
            return "pass"
        if self.beyond:
            return f"beyond this machine, whose limit is {self.ceiling:.3g}"
        return "**fail**"

    def __str__(self) -> str:
        bound = f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"
        found = "not yet measured" if self.measured is None else f"{self.measured:.3g}"
        return f"| {self.goal} | {bound} | {found} | {self.word} |"


Record = dict[str, Any]
Rows = Sequence[dict[str, Any]]


def at_least(
    goal: str, least: float, measured: float | None, ceiling: float | None = None
) -> Verdict:
    """A goal that is a floor."""
    return Verdict(goal, least, None, measured, ceiling)


def at_most(goal: str, most: float, measured: float | None) -> Verdict:
    """A goal that is a ceiling."""
    return Verdict(goal, None, most, measured)


def ratio(value: float | None, to: float | None) -> float | None:
    """Where both were measured."""
    return None if value is None or not to else value / to


def others(counts: Mapping[str, int], due: Set[str]) -> int | None:
    """How many ended otherwise than was due; None where nothing was counted."""
    if not counts:
        return None
    return sum(n for ending, n in counts.items() if ending not in due)


def rate(rows: Rows, name: str, setting: str) -> float | None:
    """Requests a second of one contestant."""
    row = find(rows, name, setting)
    return None if row is None else float(row["requests_per_s"])


def best(rows: Rows, setting: str, key: str = "requests_per_s") -> float | None:
    """The best peer in a setting; of latencies the least."""
    choose = max if key == "requests_per_s" else min
    values = [
        row[key]
        for row in rows
        if row["setting"] == setting and row["name"] != OURS and row[key] is not None
    ]
    return choose(values) if values else None


def photos(record: Record) -> list[Verdict]:
    """The compute-bound comparison."""
    rows = record.get("rows", [])
    ours, auto = rate(rows, OURS, "fp32"), rate(rows, OURS, "auto")
    own = find(rows, OURS, "fp32") or {}
    latencies = [best(rows, s, "p99_ms") for s in ("documented", "tuned")]
    best_p99 = min((p for p in latencies if p is not None), default=None)
    documented, tuned = best(rows, "documented"), best(rows, "tuned")
    top, auto_top = limit_rate(rows, "fp32"), limit_rate(rows, "auto")
    return [
        at_least("Lite0 fp32, of the in-process limit", 0.95, ratio(ours, top)),
        at_least(
            "Lite0 fp32, x best documented peer",
            1.5,
            ratio(ours, documented),
            ratio(top, documented),
        ),
        at_least(
            "Lite0 fp32, x best tuned peer",
            1.0,
            ratio(ours, tuned),
            ratio(top, tuned),
        ),
        at_least(
            "Lite0 auto, x best documented peer",
            2.4,
            ratio(auto, documented),
            ratio(auto_top, documented),
        ),
        at_most("Lite0 p99, x best peer's", 1.0, ratio(own.get("p99_ms"), best_p99)),
        at_least(
            "Lite0 int8, x our fp32",
            1.6,
            ratio(auto, ours) if record.get("auto") == "int8" else None,
            ratio(auto_top, top),
        ),
    ]


def digits(record: Record) -> list[Verdict]:
    """The overhead-bound comparison."""
    rows = record.get("rows", [])
    ours, top = rate(rows, OURS, "fp32"), limit_rate(rows, "fp32")
    own = find(rows, OURS, "fp32") or {}
    goals = [
        ("Mosec", "documented", "LeNet, x Mosec as documented", 2.0),
        ("Mosec", "tuned", "LeNet, x Mosec tuned", 2.0),
        ("FastAPI", "documented", "LeNet, x plain FastAPI", 6.0),
    ]
    ratios = [
        at_least(goal, least, ratio(ours, peer), ratio(top, peer))
        for name, setting, goal, least in goals
        for peer in [rate(rows, name, setting)]
    ]
    # wrk takes a part of one core
    return [*ratios, at_least("LeNet, cores at work", 1.5, own.get("cores"))]


def overload(record: Record, *, name: str = "overload") -> list[Verdict]:
    """Three times too much."""
    summary = record.get("summary", {})
    judged = summary.get("retry_after") or {}
    statuses = summary.get("statuses", {})
    return [
        at_least(f"{name}: goodput, of capacity", 0.9, record.get("of_capacity")),
        at_most(f"{name}: answers past their deadline", 0, summary.get("late")),
        at_most(f"{name}: neither 200 nor 503", 0, others(statuses, {"200", "503"})),
        at_least(f"{name}: true Retry-After", 0.95, judged.get("share_right")),
    ]


def fairness(record: Record) -> list[Verdict]:
    """Batches and singles. The p99 is over those that were answered."""
    singles: Counter[str] = Counter()
    for load in ("alone", "beside_batches"):
        singles.update(record.get(load, {}).get("statuses", {}))
    return [
        at_least(
            "batch-of-32, x rate of singles",
            1.0,
            record.get("batches_to_singles"),
        ),
        at_most("singles' p99 beside batches, x alone", 2.0, record.get("p99_ratio")),
        at_most("singles at a modest rate: not 200", 0, others(singles, {"200"})),
        at_most("batches, and singles at saturation: failed", 0, record.get("failed")),
    ]


def lone(record: Record) -> list[Verdict]:
    """One request at a time."""
    spent = ratio(record.get("lone_ms"), record.get("goal_ms"))
    return [at_most("lone request, of 1.1 x (decode + run + 1 ms)", 1.0, spent)]


def soak(record: Record) -> list[Verdict]:
    """200,000 requests."""
    endings = record.get("outcomes", {})
    sent = sum(endings.values()) if endings else None
    leaks = int(not record["no_leaks"]) if "no_leaks" in record else None
    return [
        at_least("soak: requests", 200_000, sent),
        at_most("soak: endings that were not due", 0, others(endings, SOAKED)),
        at_most("soak: RSS, off its median", 0.05, record.get("rss_spread")),
        at_most("soak: leaks of threads or files", 0, leaks),
    ]


GOALS: dict[str, Callable[[Record], list[Verdict]]] = {
    "peers-photos": photos,
    "peers-digits": digits,
    "overload": overload,
    "overload-digits": partial(overload, name="overload of digits"),
    "fairness": fairness,
    "lone": lone,
    "soak": soak,
}


def judge(folder: Path) -> list[Verdict]:
    """Every goal, from the records in a folder."""
    verdicts = []
    for name, goals in GOALS.items():
        path = folder / f"{name}.json"
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        verdicts += goals(record)
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exits with 1 unless every goal is met that can be met here."""
    parser = command_line("bench.goals", __doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    verdicts = judge(parser.parse_args(arguments).results)
    print("| goal | bound | measured | |\n| --- | --- | --- | --- |")
    for verdict in verdicts:
        print(verdict)
    return 0 if all(verdict.passed or verdict.beyond for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
