"""records → **goal table**: what was promised, what was measured, passed or not.

Reads what the other commands wrote into `docs/results/`; a goal whose record is not
there is "not yet measured", which is not a pass. Of several rounds the median decides
(`bench/verdict.py`). Where the best arrangement found in-process, where nothing is
served at all, did not reach a bound in any round, the table says so: there the share of
that limit is what judges ours.

    python -m bench && python -m bench.goals
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from bench.circumstances import RESULTS
from bench.lone import goal_ms
from bench.options import command_line
from bench.peers.report import LIMIT, OURS, find, ratios
from bench.verdict import Verdict, at_least, at_most

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


Record = dict[str, Any]
Rows = Sequence[dict[str, Any]]


def turns(record: Record) -> Sequence[Record]:
    """The rounds of a record; one of a single turn is its own and only round."""
    return record.get("rounds", [record])


def found(rounds: Sequence[Record], *path: str) -> list[Any]:
    """What the rounds hold at a path of keys, where they hold something."""
    values: list[Any] = list(rounds)
    for key in path:
        values = [value[key] for value in values if value.get(key) is not None]
    return values


def total(counts: Sequence[int]) -> int | None:
    """Over all rounds; None where nothing was counted."""
    return sum(counts) if counts else None


def others(counts: Mapping[str, int], due: Set[str]) -> int | None:
    """How many ended otherwise than was due; None where nothing was counted."""
    if not counts:
        return None
    return sum(n for ending, n in counts.items() if ending not in due)


def count(statuses: Sequence[Mapping[str, int]]) -> Counter[str]:
    """How many requests ended in which way, over several loads."""
    return sum(map(Counter, statuses), Counter())


def best(
    rows: Rows, *settings: str, key: str = "requests_per_s"
) -> dict[str, Any] | None:
    """The best peer in some settings; of latencies the least."""
    choose = max if key == "requests_per_s" else min
    peers = [
        row
        for row in rows
        if row["setting"] in settings and row["name"] != OURS and row[key] is not None
    ]
    return choose(peers, key=itemgetter(key), default=None)


def photos(record: Record) -> list[Verdict]:
    """The compute-bound comparison."""
    rows = record.get("rows", [])
    ours, auto = find(rows, OURS, "fp32"), find(rows, OURS, "auto")
    top, auto_top = find(rows, LIMIT, "fp32"), find(rows, LIMIT, "auto")
    documented, tuned = best(rows, "documented"), best(rows, "tuned")
    quickest = best(rows, "documented", "tuned", key="p99_ms")
    return [
        at_least("Lite0 fp32, of the in-process limit", 0.95, ratios(ours, top)),
        at_least(
            "Lite0 fp32, x best documented peer",
            1.5,
            ratios(ours, documented),
            ratios(top, documented),
        ),
        at_least(
            "Lite0 fp32, x best tuned peer",
            1.0,
            ratios(ours, tuned),
            ratios(top, tuned),
        ),
        at_least(
            "Lite0 auto, x best documented peer",
            2.4,
            ratios(auto, documented),
            ratios(auto_top, documented),
        ),
        at_most("Lite0 p99, x best peer's", 1.0, ratios(ours, quickest, "p99_ms")),
        at_least(
            "Lite0 int8, x our fp32",
            1.6,
            ratios(auto, ours) if record.get("auto") == "int8" else None,
            ratios(auto_top, ours),
        ),
    ]


def digits(record: Record) -> list[Verdict]:
    """The overhead-bound comparison."""
    rows = record.get("rows", [])
    ours, top = find(rows, OURS, "fp32"), find(rows, LIMIT, "fp32")
    goals = [
        ("Mosec", "documented", "LeNet, x Mosec as documented", 2.0),
        ("Mosec", "tuned", "LeNet, x Mosec tuned", 2.0),
        ("FastAPI", "documented", "LeNet, x plain FastAPI", 6.0),
    ]
    verdicts = [
        at_least(goal, least, ratios(ours, peer), ratios(top, peer))
        for name, setting, goal, least in goals
        for peer in [find(rows, name, setting)]
    ]
    # wrk takes a part of one core
    cores = found(ours["rounds"], "cores") if ours else None
    return [*verdicts, at_least("LeNet, cores at work", 1.5, cores)]


def overload(record: Record, *, name: str = "overload") -> list[Verdict]:
    """Three times too much."""
    rounds = turns(record)
    statuses = count(found(rounds, "summary", "statuses"))
    late = total(found(rounds, "summary", "late"))
    right = found(rounds, "summary", "retry_after", "share_right")
    return [
        at_least(f"{name}: goodput, of capacity", 0.9, found(rounds, "of_capacity")),
        at_most(f"{name}: answers past their deadline", 0, late),
        at_most(f"{name}: neither 200 nor 503", 0, others(statuses, {"200", "503"})),
        at_least(f"{name}: true Retry-After", 0.95, right),
    ]


def fairness(record: Record) -> list[Verdict]:
    """Batches and singles. The p99 is over those that were answered."""
    rounds = turns(record)
    singles = count(
        found(rounds, "alone", "statuses") + found(rounds, "beside_batches", "statuses")
    )
    failed = total(found(rounds, "failed"))
    return [
        at_least(
            "batch-of-32, x rate of singles", 1.0, found(rounds, "batches_to_singles")
        ),
        at_most(
            "singles' p99 beside batches, x alone", 2.0, found(rounds, "p99_ratio")
        ),
        at_most("singles at a modest rate: not 200", 0, others(singles, {"200"})),
        at_most("batches, and singles at saturation: failed", 0, failed),
    ]


def lone(record: Record) -> list[Verdict]:
    """One request at a time."""
    rounds = record.get("rounds", {})
    pairs = zip(rounds.get("lone_ms", []), rounds.get("in_process_ms", []), strict=True)
    spent = [lone_ms / goal_ms(bare_ms) for lone_ms, bare_ms in pairs]
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
    print("| goal | bound | measured (least to most) | |\n| --- | --- | --- | --- |")
    for verdict in verdicts:
        print(verdict)
    return 0 if all(verdict.passed or verdict.beyond for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
