"""The awkward files: each is classified or refused, fast, and none breaks anything."""

import csv
import time
from pathlib import Path

import pytest

from tests.service.conftest import RED, running, send

ALLOWED = {
    "classify": {200},
    "reject": set(range(400, 500)),
    "either": {200, *range(400, 500)},
}
LIMIT_S = 5  # a hang, on a machine that may be busy; not a speed


@pytest.fixture(scope="module")
def awkward(data_dir: Path) -> list[dict[str, str]]:
    """The rows of the manifest."""
    folder = data_dir / "awkward"
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as rows:
        return [
            {**row, "path": str(folder / row["filename"])}
            for row in csv.DictReader(rows)
        ]


def test_each_awkward_file_is_answered_as_its_manifest_says(awkward, settings_for):
    """`classify` is a 200, `reject` a 4xx with a reason, and nothing is slow."""
    wrong = []
    with running(settings_for()) as server:
        for row in awkward:
            started_s = time.perf_counter()
            status = send(server.client, Path(row["path"]).read_bytes()).status_code
            elapsed_s = time.perf_counter() - started_s
            if status not in ALLOWED[row["expect"]] or elapsed_s > LIMIT_S:
                wrong.append((row["filename"], row["expect"], status, elapsed_s))
        healthy = send(server.client, RED).status_code

    assert wrong == []
    assert healthy == 200
