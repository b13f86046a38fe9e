"""grid → **arrangement**: the search behind the tuned rows of the catalog.

Every peer is tried over what its author would turn first, one turn for each combination
of its axes in `grids`; every other switch of the framework that helps is on, see its
file. Some 12 s a combination, half an hour a workload. The record hands the winners to
a comparison; those of the workloads' own models stand in `bench/peers/catalog.py`.

    python -m bench.peers.tune --workload photos --only Mosec --json build/tuned.json
    python -m bench.peers --workload photos --tuned build/tuned.json --out build/peers
"""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from typing import Any

from bench.circumstances import write_record
from bench.ending import command
from bench.options import add_models, add_record, add_workload, command_line, positive
from bench.peers.arrangement import Arrangement
from bench.peers.catalog import TUNED, arrange, is_installed
from bench.peers.comparison import Plan, one_round
from bench.workloads import chosen_workload
from classifier.hardware import available_cores


def grids(cores: int) -> dict[str, dict[str, Sequence[object]]]:
    """Peer → axis → what is tried.

    FastAPI has no batches, BentoML adapts the wait for mates by itself, and only Mosec
    has a stage that decodes.
    """
    sessions: dict[str, Sequence[object]] = {
        "processes": (1, cores),
        "threads": (1, cores),
    }
    waits_ms = (1, 10)
    return {
        "FastAPI": {**sessions, "inline": (False, True)},
        "LitServe": {
            **sessions,
            "batch": (1, 4, 16),
            "wait_ms": waits_ms,
            "fronts": (1, cores),
        },
        "BentoML": {**sessions, "batch": (1, 4, 32)},
        "Mosec": {
            **sessions,
            "processes": (1, cores, 2 * cores),
            "batch": (1, 4, 16, 32),
            "wait_ms": waits_ms,
            "decoders": (0, cores),
        },
        "Ray Serve": {**sessions, "batch": (1, 4, 16), "wait_ms": waits_ms},
    }


def grid(name: str, *, cores: int) -> list[Arrangement]:
    """Every combination for one peer, once, without those that crowd the cores."""
    axes = grids(cores)[name]
    tried = []
    for values in itertools.product(*axes.values()):
        chosen: dict[str, Any] = dict(zip(axes, values, strict=True))
        if chosen["processes"] * chosen["threads"] > 2 * cores:
            continue
        if chosen.get("batch") == 1:  # nobody waits for mates
            chosen.pop("wait_ms", None)
        tried.append(Arrangement(tuned=True, **chosen))
    return list(dict.fromkeys(tried))


def search(plan: Plan, name: str) -> list[dict[str, object]]:
    """One round of every arrangement of a peer; fastest first."""
    found: list[dict[str, object]] = []
    for arrangement in grid(name, cores=available_cores()):
        try:
            turn = one_round(plan, arrange(name, arrangement))
        except Exception as error:  # a border: the other arrangements go on
            print(f"{name}: {arrangement}: FAILED {error}", flush=True)
            continue
        rate, p99_ms = turn["requests_per_s"], turn["p99_ms"]
        print(f"{name}: {arrangement}: {rate:.1f}/s, p99 {p99_ms:.1f} ms", flush=True)
        arranged = dataclasses.asdict(arrangement)
        found.append(
            {
                "peer": name,
                "arrangement": str(arrangement),
                "arranged": arranged,
                **turn,
            }
        )
    return sorted(found, key=lambda row: -float(str(row["requests_per_s"])))


def main(arguments: Sequence[str] | None = None) -> int:
    """Search for the peers asked for."""
    names = list(grids(cores=1))
    parser = command_line("bench.peers.tune", __doc__)
    add_workload(parser)
    add_models(parser)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seconds", type=positive, default=4.0)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    add_record(parser)
    options = parser.parse_args(arguments)
    if not is_installed():
        print("the peers' environment is missing", file=sys.stderr)
        return 2
    workload = chosen_workload(options)
    plan = Plan(workload, options.precision, 1, options.seconds, warm_seconds=1.0)
    rows = {}
    for name in options.only:
        found = rows[name] = search(plan, name)
        best = found[0]["arrangement"] if found else "none runs"
        print(f"{name}: best {best}; in the catalog {TUNED[options.workload][name]}")
        if options.json is not None:  # after each, as all of them take long
            write_record(options.json, {**workload.described(), "tuning": rows})
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
