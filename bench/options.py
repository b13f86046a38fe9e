"""docstring → **command line**: what measurements take, under the same names."""

import argparse
import math
from pathlib import Path

from bench.circumstances import REPOSITORY, RESULTS

WORKLOADS = ("photos", "digits")


def command_line(name: str, about: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m NAME`, with its module's docstring as the help."""
    return argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_models(parser: argparse.ArgumentParser) -> None:
    """`--models` and `--model`: which bundle is served."""
    parser.add_argument(
        "--models", type=Path, default=REPOSITORY / "models", help="folder of bundles"
    )
    parser.add_argument("--model", help="a name in it; default: the workload's")


def add_workload(parser: argparse.ArgumentParser) -> None:
    """`--workload` and `--images`: what is sent, over how many connections."""
    parser.add_argument("--workload", choices=WORKLOADS, default=WORKLOADS[0])
    add_images(parser)


def add_images(parser: argparse.ArgumentParser) -> None:
    """`--images`: others than the workload's."""
    parser.add_argument("--images", type=Path, help="folder; default: the workload's")


def add_record(parser: argparse.ArgumentParser, name: str | None = None) -> None:
    """`--json`: where the record goes.

    Of those without a name among the results, a try by itself writes over none.
    """
    default = RESULTS / name if name else None
    there = f"; default: docs/results/{name}" if name else ""
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=default,
        help=f"write the record there{there}",
    )


def positive(text: str) -> float:
    """A number of seconds, or a rate."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def count(text: str) -> int:
    """How many, and at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
