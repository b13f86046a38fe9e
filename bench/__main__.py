"""pieces → **every record**: all serving goals in one command, which can be resumed.

Each piece is a command of its own that writes one record. A piece whose record was made
on this machine at this commit is not run again, so a series that broke off goes on
where it stopped. The goals are judged at the end.

    python -m bench                        # everything that is missing
    python -m bench --only overload lone   # these, whether or not they are missing
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.circumstances import (
    CHANGED,
    REPOSITORY,
    RESULTS,
    UNKNOWN,
    commit,
    machine,
)
from bench.ending import command
from bench.options import command_line


@dataclass(frozen=True, slots=True)
class Piece:
    """One command and the record that it writes."""

    name: str  # of the record
    module: str
    arguments: tuple[str, ...] = ()

    def is_fresh(self, results: Path) -> bool:
        """Whether its record is whole, and of this commit and machine."""
        try:
            record = json.loads((results / f"{self.name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return False
        now = commit()
        if now == UNKNOWN or now.endswith(CHANGED):  # may have been any other code
            return False
        same = (record.get("commit"), record.get("machine")) == (now, machine())
        return same and record.get("whole", True)

    def record(self) -> tuple[str, ...]:
        """Where it writes; a command that is tried by itself writes over nothing."""
        if self.module == "bench.goals":  # reads
            return ()
        if self.module == "bench.peers":  # a table and a plot, too
            return ("--out", "docs/results")
        return ("--json", f"docs/results/{self.name}.json")

    def run(self) -> int:
        """Run it; its output goes where ours goes."""
        arguments = [sys.executable, "-m", self.module, *self.arguments]
        process = subprocess.Popen([*arguments, *self.record()], cwd=REPOSITORY)
        try:
            return process.wait()
        except BaseException as ending:
            # It has servers to stop, for which `subprocess.run` would not wait.
            if not isinstance(ending, KeyboardInterrupt):  # which reached it, too
                process.terminate()
            process.wait()
            raise


PIECES = (
    Piece("peers-photos", "bench.peers", ("--workload", "photos")),
    Piece("peers-digits", "bench.peers", ("--workload", "digits")),
    Piece("overload", "bench.overload"),
    Piece(
        "overload-digits",
        "bench.overload",
        ("--workload", "digits", "--clients", "2", "--deadline-ms", "500"),
    ),
    Piece("fairness", "bench.fairness"),
    Piece("lone", "bench.lone"),
    Piece("dialects-photos", "bench.dialects", ("--workload", "photos")),
    Piece("dialects-digits", "bench.dialects", ("--workload", "digits")),
    Piece("soak", "bench.soak"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 if a piece failed or a goal is not met."""
    names = [piece.name for piece in PIECES]
    parser = command_line("bench", __doc__)
    parser.add_argument("--only", nargs="+", choices=names, help="run these again")
    only = parser.parse_args(arguments).only
    failed = []
    for piece in PIECES:
        if piece.is_fresh(RESULTS) if only is None else piece.name not in only:
            print(f"--- {piece.name}: skipped", flush=True)
            continue
        print(f"--- {piece.name}", flush=True)
        began_s = time.monotonic()
        if piece.run() != 0:
            failed.append(piece.name)
        print(f"--- {piece.name}: {time.monotonic() - began_s:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    goals = Piece("goals", "bench.goals").run()
    return 1 if failed else goals


if __name__ == "__main__":
    sys.exit(command(main))
