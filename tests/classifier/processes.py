"""Code in a process of its own: what it printed, and the most memory it ever held."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PEAK = """
import re
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())
print(int(peak[1]) // 1024)  # MiB
"""


def python(
    code: str, *arguments: object, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run code in the root of the checkout, with arguments in `sys.argv[1:]`."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not check or result.returncode == 0, result.stderr
    return result


def peak_mib(code: str, *arguments: object) -> int:
    """The most resident memory, in MiB, of a process that runs this code.

    The kernel's own high-water mark of the process; `getrusage` would also count what
    this process held before the other one began.
    """
    return int(python(code + PEAK, *arguments).stdout.split()[-1])
