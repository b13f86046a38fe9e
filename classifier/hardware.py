"""The machine → **what this process may really use**: cores, vector units, memory.

Containers hide their limits from naive counts: ONNX Runtime and most libraries take
the host's cores. Here the affinity mask and the cgroup quota (v2 and v1) decide.
"""

import math
import os
import platform
from functools import cache
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "asimddp", "i8mm"}  # 8-bit dot products


def affinity_cores() -> int:
    """Cores that the scheduler may give this process."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _own_groups(proc: Path) -> dict[str, str]:
    """Controller → path of this process's control group; '' names the v2 hierarchy."""
    groups = {}
    for line in (_read(proc / "self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _up(root: Path, path: str) -> list[Path]:
    """The group's folder and all above it: the tightest limit of them holds."""
    folder = root / path.lstrip("/")
    inside = [folder, *folder.parents]
    return [f for f in inside if f == root or root in f.parents]


def quota_cores(cgroup: Path = CGROUP, proc: Path = PROC) -> float | None:
    """Processor time the control group may use, in cores; None when unlimited."""
    groups = _own_groups(proc)
    limits = []
    for folder in _up(cgroup, groups.get("", "/")):
        quota, _, period = (_read(folder / "cpu.max") or "max").partition(" ")
        if quota != "max":
            limits.append(int(quota) / int(period or 100_000))
    for folder in _up(cgroup / "cpu", groups.get("cpu", "/")):
        quota = _read(folder / "cpu.cfs_quota_us") or "-1"
        period = _read(folder / "cpu.cfs_period_us") or "100000"
        if int(quota) > 0:
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def available_cores() -> int:
    """Threads worth starting: affinity, cut by the quota, at least one."""
    quota = quota_cores()
    cores = affinity_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def memory_bytes(cgroup: Path = CGROUP, proc: Path = PROC) -> int | None:
    """Memory this process may use; None where nobody says."""
    groups = _own_groups(proc)
    limits = []
    for line in (_read(proc / "meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            limits.append(1024 * int(line.split()[1]))
    for folder in _up(cgroup, groups.get("", "/")):
        limit = _read(folder / "memory.max") or "max"
        if limit != "max":
            limits.append(int(limit))
    for folder in _up(cgroup / "memory", groups.get("memory", "/")):
        # where there is no limit, v1 has a number beyond any memory
        limits.append(int(_read(folder / "memory.limit_in_bytes") or 2**63))
    return min((limit for limit in limits if limit < 2**60), default=None)


def _cpu_facts(proc: Path = PROC) -> dict[str, str]:
    """What Linux says of the processor; of several cores, what the first has."""
    facts: dict[str, str] = {}
    for line in (_read(proc / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return facts


@cache
def cpu_flags() -> frozenset[str]:
    """Vector instructions, as Linux names them; empty where it does not say."""
    facts = _cpu_facts()
    return frozenset(facts.get("flags", facts.get("Features", "")).split())


def has_fast_int8() -> bool:
    """Whether 8-bit dot products are one instruction (VNNI, or Arm's dotprod/i8mm).

    Without them an int8 graph can be slower than fp32, and x86 AVX2 sums saturate.
    """
    return bool(cpu_flags() & INT8_FLAGS)


def cpu_name(proc: Path = PROC) -> str:
    """The processor's marketing name, or the architecture where it is unknown.

    Clouds cut the name down to `AMD EPYC`, and two generations of that differ twofold
    in speed, so family and model follow where Linux gives them.
    """
    facts = _cpu_facts(proc)
    if "model name" not in facts:
        return platform.machine()
    if "cpu family" not in facts or "model" not in facts:
        return facts["model name"]
    return f"{facts['model name']} family {facts['cpu family']} model {facts['model']}"


def describe() -> str:
    """One line for manifests: `2 x AMD EPYC family 25 model 17 (avx2, avx512_vnni)`."""
    units = sorted(cpu_flags() & {"avx2", "avx512_bf16", *INT8_FLAGS})
    return (
        f"{available_cores()} x {cpu_name()} ({', '.join(units) or 'no vector flags'})"
    )
