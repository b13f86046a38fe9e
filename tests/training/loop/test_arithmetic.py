"""Memory that a training step finds again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")

TOUCH = """
from training.loop.arithmetic import keep_memory
keep_memory()
import torch
image = torch.ones(1 << 24)  # 64 MiB
print(open("/proc/self/smaps").read())
"""


def large_pages_are_offered() -> bool:
    """Whether this kernel gives large pages to who asks for them."""
    return SWITCH.is_file() and "[never]" not in SWITCH.read_text()


@pytest.mark.skipif(
    not large_pages_are_offered(), reason="the kernel gives no large pages"
)
def test_tensors_lie_where_large_pages_are_asked_for():
    """Asking works after torch is imported, if no tensor was made before.

    How many the kernel then has to give is the machine's business (hg: proc(5)).
    """
    told = subprocess.run(
        [sys.executable, "-c", TOUCH], capture_output=True, text=True, check=True
    )

    sizes = re.findall(r"^Size: +(\d+) kB$", told.stdout, re.MULTILINE)
    flags = re.findall(r"^VmFlags:(.*)$", told.stdout, re.MULTILINE)
    regions = zip(sizes, flags, strict=True)
    asked = sum(int(size) for size, its in regions if "hg" in its.split())
    assert asked >= 60 * 1024  # KiB
