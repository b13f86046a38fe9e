"""grid → **arrangement**: the search behind the tuned rows of the catalog.

Every peer is tried over what its author would turn first: processes, threads of a
session, batch size, the wait for mates, where to decode. The winner is written into
`TUNED` of `bench/peers/catalog.py` by hand, so that a comparison is repeatable.

    python -m bench.peers.tune --workload photos --seconds 4 --only Mosec
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.circumstances import write_record
from bench.launch import LaunchError
from bench.options import add_models, add_workload, command_line
from bench.peers.arrangement import Arrangement
from bench.peers.catalog import TUNED, arrange, is_installed
from bench.peers.comparison import Plan, one_round
from bench.workloads import load_workload
from bench.wrk import WrkError
from classifier.hardware import available_cores

CORES = available_cores()

# Peer → what is tried; every combination.
GRIDS: dict[str, dict[str, Sequence[object]]] = {
    "FastAPI": {"processes": (CORES,), "threads": (1, CORES), "inline": (False, True)},
    "LitServe": {
        "processes": (1, CORES),
        "batch": (1, 16),
        "fronts": (1, CORES),
    },
    "BentoML": {"processes": (1, CORES), "batch": (1, 32)},
    "Mosec": {"processes": (1, CORES), "batch": (1, 4, 32)},
    "Ray Serve": {"processes": (1, CORES), "batch": (1, 16)},
}


def grid(name: str) -> Iterator[Arrangement]:
    """Every combination for one peer, one-thread sessions unless it says otherwise."""
    base = Arrangement(threads=1, wait_ms=1, tuned=True)
    axes = GRIDS[name]
    for values in itertools.product(*axes.values()):
        yield replace(base, **dict(zip(axes, values, strict=True)))  # type: ignore[arg-type]


def search(plan: Plan, name: str) -> list[dict[str, object]]:
    """One round of every arrangement of a peer; fastest first."""
    found: list[dict[str, object]] = []
    for arrangement in grid(name):
        try:
            turn = one_round(plan, arrange(name, arrangement))
        except (LaunchError, WrkError) as error:
            print(f"{name}: {arrangement}: FAILED {error}", flush=True)
            continue
        rate, p99_ms = turn["requests_per_s"], turn["p99_ms"]
        print(f"{name}: {arrangement}: {rate:.1f}/s, p99 {p99_ms:.1f} ms", flush=True)
        row = {"peer": name, "arrangement": str(arrangement), **turn}
        found.append(row)
    return sorted(found, key=lambda row: -float(str(row["requests_per_s"])))


def main(arguments: Sequence[str] | None = None) -> int:
    """Search for the peers asked for."""
    parser = command_line("bench.peers.tune", __doc__)
    add_workload(parser)
    add_models(parser)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", nargs="+", choices=list(GRIDS), default=list(GRIDS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if not is_installed():
        print("the peers' environment is missing", file=sys.stderr)
        return 2
    default = load_workload(options.workload)
    workload = replace(default, bundle=options.models / default.bundle.name)
    plan = Plan(workload, options.precision, 1, options.seconds, warm_seconds=1.0)
    rows = {name: search(plan, name) for name in options.only}
    for name, found in rows.items():
        best = found[0]["arrangement"] if found else "none runs"
        print(f"{name}: best {best}; in the catalog {TUNED[options.workload][name]}")
    if options.json is not None:
        write_record(options.json, {"workload": options.workload, "tuning": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
