"""records of a search → **arrangements** that take the catalog's place."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.ending import MeasurementError
from bench.peers.arrangement import Arrangement
from bench.workloads import Workload


def read_winners(paths: Sequence[Path], workload: Workload) -> dict[str, Arrangement]:
    """The fastest arrangement of each peer that `bench.peers.tune` has searched for.

    Raises:
        MeasurementError: a file is no such record, or none is of this load and model.
    """
    asked = f"{workload.name} with {workload.bundle.name}"
    winners: dict[str, Arrangement] = {}
    searched = []
    for path in paths:
        searched_for, fastest = _read(path)
        searched.append(f"{path}: {searched_for}")
        if searched_for == asked:
            winners |= fastest
    if paths and not winners:
        raise MeasurementError(
            f"no arrangement was found for {asked}; {'; '.join(searched)}"
        )
    return winners


def _read(path: Path) -> tuple[str, dict[str, Arrangement]]:
    """Load and model that a search was for, and what it has found."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        searched_for = f"{record['workload']} with {record['model']}"
        return searched_for, _fastest(record["tuning"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MeasurementError(
            f"{path} is no record of bench.peers.tune: {type(error).__name__}: {error}"
        ) from error


def _fastest(tuning: Mapping[str, Sequence[Any]]) -> dict[str, Arrangement]:
    """Their rows are sorted; a peer of which nothing ran has none."""
    return {
        name: Arrangement(**found[0]["arranged"])
        for name, found in tuning.items()
        if found
    }
