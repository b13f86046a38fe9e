"""docstring → **command line**: what measurements take, under the same names."""

import argparse
from pathlib import Path

from bench.circumstances import REPOSITORY

WORKLOADS = ("photos", "digits")


def command_line(name: str, about: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m NAME`, with its module's docstring as the help."""
    return argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_models(parser: argparse.ArgumentParser) -> None:
    """`--models`, the folder of the bundles that are served."""
    parser.add_argument(
        "--models", type=Path, default=REPOSITORY / "models", help="folder of bundles"
    )


def add_workload(parser: argparse.ArgumentParser) -> None:
    """`--workload`: which of them is asked, with which images."""
    parser.add_argument("--workload", choices=WORKLOADS, default=WORKLOADS[0])
