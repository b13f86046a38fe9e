"""Memory that a training step finds again."""

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
rollup = open("/proc/self/smaps_rollup").read()
print(rollup.split("AnonHugePages:")[1].split()[0])
"""


def large_pages_are_offered() -> bool:
    """Whether this kernel gives large pages to who asks for them."""
    return SWITCH.is_file() and "[never]" not in SWITCH.read_text()


@pytest.mark.skipif(
    not large_pages_are_offered(), reason="the kernel gives no large pages"
)
def test_tensors_lie_in_large_pages():
    """Asking works after torch is imported, if no tensor was made before."""
    told = subprocess.run(
        [sys.executable, "-c", TOUCH], capture_output=True, text=True, check=True
    )

    assert int(told.stdout) >= 32 * 1024  # KiB
