"""the tested environment → **constraints.txt**: one pin a package, for every platform.

    make constraints

Pins are what is installed here and what the tests ran with. Local version suffixes
(`2.13.0+cpu`) are cut off, because an index elsewhere has only the plain version. The
packages of the `gpu` extra are resolved without being installed.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
TESTED_EXTRAS = ("cpu", "import", "train", "pretrained", "dev")

# What the CUDA build of this torch release asks for. ONNX Runtime takes any release of
# the same major version, so that with these pins both live in one environment.
TORCH_CUDA = {
    "nvidia-cublas": "13.1.1.3",
    "nvidia-cuda-nvrtc": "13.0.88",
    "nvidia-cuda-runtime": "13.0.96",
    "nvidia-cudnn-cu13": "9.20.0.48",
    "nvidia-cufft": "12.0.0.61",
    "nvidia-curand": "10.4.0.35",
}

HEAD = """\
# Every version that the tests ran with; written by `make constraints`, used by every
# installation of the Makefile and the Dockerfile.
"""


def canonical(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_closure(root: str, extras: tuple[str, ...]) -> dict[str, str]:
    """name → version of all that `root[extras]` needs, as it is installed."""
    pins: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset(extras))]
    seen = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        package = metadata.distribution(name)
        pins[canonical(name)] = package.version.partition("+")[0]
        for line in package.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            environments = [{"extra": extra} for extra in wanted or {""}]
            if marker is None or any(marker.evaluate(e) for e in environments):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    del pins[canonical(root)]
    return pins


def gpu_closure(pins: dict[str, str]) -> dict[str, str]:
    """name → version of what the `gpu` extra adds to `pins`, as pip resolves it."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder, "constraints.txt"), Path(folder, "report")
        constraints.write_text(listing(pins))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--disable-pip-version-check"]
        command += ["--constraint", str(constraints), "--report", str(report)]
        subprocess.run([*command, "--editable", f"{ROOT}[gpu]"], check=True)  # noqa: S603  # our own arguments
        found = json.loads(report.read_text())["install"]
    versions = {
        canonical(item["metadata"]["name"]): item["metadata"]["version"]
        for item in found
    }
    return {n: v for n, v in versions.items() if n not in pins and n != "linnaeus"}


def listing(pins: dict[str, str]) -> str:
    """The pins as lines of a constraints file."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


def main() -> None:
    """Write constraints.txt beside pyproject.toml."""
    pins = installed_closure("linnaeus", TESTED_EXTRAS)
    onnxruntime = {"onnxruntime-gpu": pins["onnxruntime"]}
    gpu = gpu_closure(pins | onnxruntime | TORCH_CUDA) | onnxruntime | TORCH_CUDA
    (ROOT / "constraints.txt").write_text(
        f"{HEAD}{listing(pins)}\n# The gpu extra; resolved, not installed, where there"
        f" is no GPU.\n{listing(gpu)}"
    )


if __name__ == "__main__":
    main()
