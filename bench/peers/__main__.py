"""Compare Linnaeus with its peers in one interleaved run: table, plot and JSON.

    make .venv-peers/.installed
    python -m bench.peers --rounds 3 --seconds 6 --out build/peers

Takes some 6 s more than `--seconds` for each of a dozen contestants, round, workload.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.circumstances import machine, write_record
from bench.ending import MeasurementError, command
from bench.limit import search
from bench.options import (
    WORKLOADS,
    add_images,
    add_models,
    command_line,
    count,
    positive,
)
from bench.peers import report
from bench.peers.catalog import (
    TUNED,
    Contestant,
    contestants,
    is_installed,
    peer_versions,
)
from bench.peers.comparison import Plan, compare
from bench.peers.winners import read_winners
from bench.pipelines import Pipeline
from bench.workloads import Workload, chosen_workload
from classifier.bundle import load_bundle, resolve
from classifier.variant import choose_variant

NAMES = ("Linnaeus", *TUNED["photos"])
SETTINGS = ("fp32", "auto", "documented", "tuned")


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = command_line("bench.peers", __doc__)
    parser.add_argument(
        "--workload",
        nargs="+",
        choices=WORKLOADS,
        default=WORKLOADS,
    )
    add_images(parser)
    add_models(parser)
    parser.add_argument("--precision", default="fp32", help="of every peer")
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument(
        "--seconds", type=positive, default=6.0, help="measured, each turn"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, help="these alone")
    parser.add_argument("--setting", nargs="+", choices=SETTINGS, help="in these alone")
    parser.add_argument(
        "--tuned",
        type=Path,
        nargs="+",
        default=[],
        help="records of bench.peers.tune, whose winners are the tuned peers",
    )
    parser.add_argument("--limit-seconds", type=positive, default=2.0)
    parser.add_argument("--out", type=Path, help="folder: record, table and plot")
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace, workload: Workload) -> list[Contestant]:
    """The contestants asked for.

    Raises:
        MeasurementError: there is none, or a search was for something else.
    """
    found = []
    for contestant in contestants(workload, read_winners(options.tuned, workload)):
        if options.only and contestant.name not in options.only:
            continue
        if options.setting and contestant.setting not in options.setting:
            continue
        found.append(contestant)
    if not found:
        raise MeasurementError("nobody of that name takes part in that setting")
    return found


def find_limits(
    options: argparse.Namespace, workload: Workload, listed: Sequence[Contestant]
) -> dict[str, Pipeline]:
    """The best in-process arrangement of each precision that takes part.

    The search only chooses it: its rate is measured among the contestants.
    """
    precisions = {c.precision or options.precision for c in listed}
    bundle, limits = resolve(workload.bundle), {}
    for precision in sorted(precisions):
        best = search(bundle, precision, workload.images, seconds=options.limit_seconds)
        limits[precision] = best[0][0]
        rate = statistics.median(best[0][1])
        print(f"limit {precision}: {best[0][0]} at {rate:.1f}/s", flush=True)
    return limits


def run(
    options: argparse.Namespace, workload: Workload, listed: Sequence[Contestant]
) -> None:
    """Compare on one workload, and write what is known after each round."""
    plan = Plan(workload, options.precision, options.rounds, options.seconds)
    limits = find_limits(options, workload, listed)
    loaded = load_bundle(resolve(workload.bundle))
    facts = {
        **workload.described(),
        "connections": workload.connections,
        "description": loaded.manifest.description,
        "peers": peer_versions(),
        "auto": str(choose_variant(loaded, "auto", "cpu").precision),
        "seconds": options.seconds,
    }
    rounds = compare(plan, listed, limits, tell=lambda text: print(text, flush=True))
    for number, standings in enumerate(rounds, 1):
        rows = report.rows(standings)
        title = f"{workload.name}: {workload.connections} connections"
        table = report.markdown(title, rows)
        if options.out is not None:
            whole = number == options.rounds
            found = {**facts, "rounds": number, "whole": whole, "rows": rows}
            write(options.out, found, table)
    print(table)


def write(out: Path, record: dict[str, Any], table: str) -> None:
    """Record, table and plot, over those of fewer rounds."""
    name, rows = record["workload"], record["rows"]
    write_record(out / f"peers-{name}.json", record)
    (out / f"peers-{name}.md").write_text(table + "\n", encoding="utf-8")
    title = f"{name}, {record['connections']} connections, {machine()}"
    report.plot(title, rows, out / f"peers-{name}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison asked for."""
    options = read_arguments(arguments)
    if not is_installed():
        print("the peers' environment is missing; see --help", file=sys.stderr)
        return 2
    workloads = [chosen_workload(options, name) for name in options.workload]
    # All of them first: what is wrong with the last is not said after an hour.
    comparisons = [(workload, chosen(options, workload)) for workload in workloads]
    for workload, listed in comparisons:
        run(options, workload, listed)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
