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
    winners: dict[str, Arrangement] = {}
    searched = []
    for path in paths:
        record = _read(path)
        searched.append(f"{path}: {record['workload']} with {record['model']}")
        if (record["workload"], record["model"]) == _of(workload):
            winners |= _fastest(record["tuning"])
    if paths and not winners:
        load, model = _of(workload)
        raise MeasurementError(
            f"no arrangement was found for {load} with {model}; {'; '.join(searched)}"
        )
    return winners


def _of(workload: Workload) -> tuple[str, str]:
    return workload.name, workload.bundle.name


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _fastest(record["tuning"])
        _ = record["workload"], record["model"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MeasurementError(
            f"{path} is no record of bench.peers.tune: {type(error).__name__}: {error}"
        ) from error
    return record


def _fastest(tuning: Mapping[str, Sequence[Any]]) -> dict[str, Arrangement]:
    """Their rows are sorted; a peer of which nothing ran has none."""
    return {
        name: Arrangement(**found[0]["arranged"])
        for name, found in tuning.items()
        if found
    }
