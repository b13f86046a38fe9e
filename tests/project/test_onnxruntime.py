"""ONNX Runtime: one door, no telemetry, one build."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOOR = Path("classifier/runtime.py")
# Submodules that the door does not hand out: they are reached by name, after it.
TOOLS = ("onnxruntime.quantization", "onnxruntime.transformers")


def test_only_the_door_imports_onnxruntime(sources):
    """Whoever imports it directly can be first, and then it has already phoned home."""
    direct = [
        f"{source.path}:{line} imports {name}"
        for source in sources
        if source.path != DOOR
        for line, name in source.imports()
        if name.startswith("onnxruntime") and not name.startswith(TOOLS)
    ]

    assert direct == []


def test_its_tools_are_imported_only_below_the_door(sources):
    """Quantizer and converter import the whole of it, so the door must come before."""
    behind = behind_the_door(sources)
    early = [
        f"{source.path}:{line} imports {name}"
        for source in sources
        for line, name in source.imports()
        if name.startswith(TOOLS)
        and not any(
            n < line and what.startswith(behind) for n, what in source.imports()
        )
    ]

    assert early == []


def behind_the_door(sources) -> tuple[str, ...]:
    """Modules that import the door, themselves or through one another."""
    imports = {
        ".".join(source.path.with_suffix("").parts): [n for _, n in source.imports()]
        for source in sources
    }
    behind = {"classifier.runtime"}
    size = 0
    while size < len(behind):
        size = len(behind)
        known = tuple(behind)
        behind |= {
            m for m, ns in imports.items() if any(n.startswith(known) for n in ns)
        }
    return tuple(behind)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, in the root of the checkout."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("ORT_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def traces(code: str, home: Path, **environment: str) -> list[str]:
    """Run code with an empty home: the files it left there, and what it printed."""
    home.mkdir()
    result = python(code, HOME=str(home), **environment)
    assert result.returncode == 0, result.stderr
    left = [str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()]
    return left + result.stdout.split()


# After a real run: what the process holds open that has to do with sending something.
OPEN = """
import os
for fd in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        continue
    if target.startswith("socket:") or "onnxruntime" in target:
        print(target)
"""

RUN = """
from classifier import Classifier
import numpy as np
c = Classifier.load("models/imagenet")
c.classify(np.zeros((300, 300, 3), np.uint8))
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
def test_classifying_leaves_no_id_and_opens_no_connection(tmp_path, imagenet_bundle):
    """Even for a caller whose environment asks for telemetry."""
    found = traces(RUN + OPEN, tmp_path / "home", ORT_DISABLE_TELEMETRY="0")

    assert found == []


@linux
def test_without_the_door_there_would_be_an_id(tmp_path):
    """The check above can fail: the official wheels do what the door prevents.

    When this is skipped, a release has given up its telemetry, or its process ended too
    soon: then the test above has nothing to find.
    """
    # the wheel writes in the background, and a short process may end before that
    for attempt in range(4):
        found = traces("import onnxruntime" + OPEN, tmp_path / f"home-{attempt}")
        if any("deviceid" in name for name in found):
            return
    pytest.skip("this wheel wrote no id here, so the test above had nothing to find")


def fake_distribution(folder: Path, name: str) -> None:
    """Metadata of an installed package, and nothing else."""
    info = folder / f"{name.replace('-', '_')}-1.31.1.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.1\n"
    (info / "METADATA").write_text(text)


def test_two_builds_in_one_environment_are_refused(tmp_path):
    """The two unpack into one folder: what is left is a mixture that runs, somehow."""
    fake_distribution(tmp_path, "onnxruntime")
    fake_distribution(tmp_path, "onnxruntime-gpu")
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").touch()

    result = python("import classifier.runtime", PYTHONPATH=str(tmp_path))

    assert result.returncode != 0
    assert "onnxruntime 1.31.1 and" in result.stderr
    assert "onnxruntime-gpu 1.31.1 are installed together" in result.stderr
    assert "uninstall both, then install one" in result.stderr
