"""The record of all networks: whole, within its bounds, and made by rows."""

import json

import pytest

from bench.circumstances import RESULTS
from bench.networks import (
    LARGEST_DIFFERENCE,
    LEAST_CORRELATION,
    complaint,
    rows_wanted,
)
from training.networks import table

FINE = {"parity": 1e-6, "int8_correlation": 0.99}


@pytest.mark.parametrize("name", [row.name for row in table()])
def test_every_network_is_exported_quantized_and_within_the_bounds(name):
    """By the record; `python -m bench.networks --int8 --missing` makes it."""
    row = json.loads((RESULTS / "networks.json").read_text())["networks"][name]

    assert row["parity"] <= LARGEST_DIFFERENCE
    assert row["int8_correlation"] >= LEAST_CORRELATION
    assert row["int8_mb"] < 0.4 * row["fp32_mb"]
    assert not row["commit"].endswith("+changes")


def test_a_row_out_of_bounds_is_complained_of():
    """Numbers that are none are out of bounds too."""
    assert complaint(FINE) is None
    assert complaint({"parity": 1e-6}) is None  # not quantized this time
    assert "parity 0.001" in complaint(FINE | {"parity": 1e-3})
    assert "parity nan" in complaint(FINE | {"parity": float("nan")})
    assert "int8 correlation 0.5" in complaint(FINE | {"int8_correlation": 0.5})


def test_a_run_goes_on_with_what_the_file_lacks(tmp_path):
    """And does all again when it is not asked to."""
    path = tmp_path / "networks.json"
    path.write_text(json.dumps({"networks": {"lenet5": FINE}}))
    names = ["lenet5", "alexnet"]

    missing = rows_wanted(names, missing=True, path=path)
    again = rows_wanted(names, missing=False, path=path)

    assert [row.name for row in missing] == ["alexnet"]
    assert [row.name for row in again] == names
