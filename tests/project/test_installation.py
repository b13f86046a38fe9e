"""What is installed, and that everywhere the same is installed."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_an_environment_that_could_not_be_made_is_tried_again(tmp_path):
    """Without python3-venv, Debian's Python leaves a bin/python and no pip."""
    python, environment = tmp_path / "python", tmp_path / "environment"
    python.write_text(
        "#!/bin/sh\n"
        f"mkdir -p {environment}/bin && touch {environment}/bin/python && exit 1\n"
    )
    python.chmod(0o700)
    make = ["make", f"PYTHON={python}", f"VENV={environment}", "DEVICE=cpu", "install"]

    tries = [
        subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
        for _ in range(2)
    ]

    assert [f"{python} -m venv" in each.stdout for each in tries] == [True, True]
    assert [each.returncode for each in tries] == [2, 2]


def canonical(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Package → the one version that constraints.txt allows."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and line[0] != "#"]
    assert all(len(pair) == 2 for pair in pairs)
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: version for name, version in pairs}


REQUIREMENTS = [
    (where, Requirement(line))
    for where, lines in {"dependencies": PROJECT["dependencies"], **EXTRAS}.items()
    for line in lines
]


def exact_version(requirement: Requirement) -> str:
    """The version of `name==version`, which needs no other pin; else none."""
    found = [s.version for s in requirement.specifier if s.operator == "=="]
    return found[0] if found else ""


@pytest.mark.parametrize(
    ("where", "requirement"),
    REQUIREMENTS,
    ids=[f"{where}:{requirement.name}" for where, requirement in REQUIREMENTS],
)
def test_every_requirement_has_a_tested_version(pins, where, requirement):
    """A clone made next year installs what was tested this year."""
    version = pins.get(canonical(requirement.name), exact_version(requirement))

    assert version in requirement.specifier
    assert "*" not in version


def test_no_pin_needs_somebodys_own_index(pins):
    """A local version such as 2.13.0+cpu is on no public index."""
    assert [name for name, version in pins.items() if "+" in version] == []


def test_what_serves_asks_for_no_torch():
    """Neither the service nor its two devices pull the training packages in."""
    serving = [*PROJECT["dependencies"], *EXTRAS["cpu"], *EXTRAS["gpu"]]
    names = {canonical(Requirement(line).name) for line in serving}

    assert names.isdisjoint({"torch", "onnx", "onnxscript", "scikit-learn"})


def test_only_the_two_device_extras_choose_a_build_of_onnxruntime():
    """Any other one would put the CPU build over the GPU build."""
    choosing = {
        where for where, found in REQUIREMENTS if found.name.startswith("onnxruntime")
    }

    assert choosing == {"cpu", "gpu"}


def test_cuda_pins_are_of_the_major_version_that_onnxruntime_is_built_for(pins):
    """The GPU wheels are built with CUDA 13 and cuDNN 9; torch and they share these."""
    assert pins["nvidia-cuda-runtime"] in SpecifierSet("~=13.0")
    assert pins["nvidia-cudnn-cu13"] in SpecifierSet("~=9.0")
    assert pins["onnxruntime-gpu"] == pins["onnxruntime"]
