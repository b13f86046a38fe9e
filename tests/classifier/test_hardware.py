"""The machine → what this process may use, from control groups of both kinds."""

import platform
from pathlib import Path

import pytest

from classifier import hardware
from classifier.hardware import memory_bytes, quota_cores


def tree(root: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """Write a control group hierarchy and a /proc; return both roots."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root / "cgroup", root / "proc"


V2 = {"proc/self/cgroup": "0::/pods/pod7/box"}
V1 = {"proc/self/cgroup": "4:cpuset:/other\n3:cpu,cpuacct:/docker/box\n1:name=s:/x"}
HALF = {"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        (V2, None),
        (V2 | {"cgroup/cpu.max": "max 100000"}, None),
        (V2 | {"cgroup/pods/pod7/box/cpu.max": "150000 100000"}, 1.5),
        (V2 | {"cgroup/pods/pod7/box/cpu.max": "50000"}, 0.5),
        # inside a container its own group is the root of what it sees
        (V2 | {"cgroup/cpu.max": "400000 200000"}, 2.0),
        # of nested limits the tightest holds, wherever it is
        (
            V2
            | {
                "cgroup/pods/pod7/box/cpu.max": "max 100000",
                "cgroup/pods/pod7/cpu.max": "100000 100000",
                "cgroup/pods/cpu.max": "800000 100000",
            },
            1.0,
        ),
        # a neighbor's limit is not ours
        (V2 | {"cgroup/pods/pod8/cpu.max": "10000 100000"}, None),
        (V1, None),
        (V1 | {f"cgroup/cpu/docker/box/{k}": v for k, v in HALF.items()}, 1.5),
        (V1 | {f"cgroup/cpu/{k}": v for k, v in HALF.items()}, 1.5),
        (
            V1
            | {f"cgroup/cpu/docker/{k}": v for k, v in HALF.items()}
            | {"cgroup/cpu/docker/box/cpu.cfs_quota_us": "-1"},
            1.5,
        ),
        (V1 | {f"cgroup/cpu/other/{k}": v for k, v in HALF.items()}, None),
        # a path out of the namespace climbs no further than the root
        ({"proc/self/cgroup": "0::/../../x", "cpu.max": "1 100000"}, None),
    ],
)
def test_the_quota_of_the_control_group_is_found(tmp_path, files, cores):
    """In version 2 and version 1, in the group itself and above it."""
    assert quota_cores(*tree(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 8), (0.2, 1), (1.0, 1), (1.5, 2), (64.0, 8)]
)
def test_threads_are_what_affinity_and_quota_grant(monkeypatch, quota, cores):
    """A started core counts whole; at least one; never more than the mask has."""
    monkeypatch.setattr(hardware, "affinity_cores", lambda: 8)
    monkeypatch.setattr(hardware, "quota_cores", lambda: quota)

    assert hardware.available_cores() == cores


def test_the_machine_is_described_in_one_line():
    """For manifests and reports."""
    text = hardware.describe()

    assert text.startswith(f"{hardware.available_cores()} x {hardware.cpu_name()} (")
    assert "\n" not in text


CORE = "cpu family\t: {}\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (CORE.format(26) + "\n" + CORE.format(25), "AMD EPYC family 26 model 2"),
        ("model name\t: Some board\n", "Some board"),
        ("processor\t: 0\nFeatures\t: asimd\n", platform.machine()),
        (None, platform.machine()),
    ],
)
def test_two_generations_of_one_name_are_told_apart(tmp_path, cpuinfo, name):
    """A cloud says `AMD EPYC` for both; what the first core says counts."""
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)

    assert hardware.cpu_name(tmp_path) == name


MEMINFO = {"proc/meminfo": "MemTotal:  2048 kB\nMemFree:  1 kB"}
V1_MEMORY = {"proc/self/cgroup": "5:memory:/docker/box"}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        (MEMINFO, 2**21),
        (V2 | MEMINFO | {"cgroup/memory.max": "max"}, 2**21),
        (V2 | MEMINFO | {"cgroup/pods/pod7/memory.max": "1048576"}, 2**20),
        (V2 | MEMINFO | {"cgroup/pods/pod8/memory.max": "4096"}, 2**21),
        (V2 | {"cgroup/memory.max": "4194304"}, 2**22),
        (V1_MEMORY | {"cgroup/memory/docker/memory.limit_in_bytes": "4096"}, 4096),
        (V1_MEMORY | {"cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096)}, None),
    ],
)
def test_memory_is_what_the_tightest_of_machine_and_groups_leaves(
    tmp_path, files, found
):
    """A container sees the host's memory and is killed at its own."""
    assert memory_bytes(*tree(tmp_path, files)) == found
