"""The one door to **onnxruntime**: telemetry off, exactly one build installed.

Every module that needs ONNX Runtime imports it from here; a test scans for others.
This module acts on import, against the house rule, because both of its duties must be
done before the first `import onnxruntime` anywhere in the process: the official wheels
send telemetry and write a device id unless `ORT_DISABLE_TELEMETRY=1` is set by then.
"""

import os
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

BUILDS = ("onnxruntime", "onnxruntime-gpu")


class RuntimeInstallationError(ImportError):
    """ONNX Runtime is missing, or two builds of it overwrite one another."""


def installed_builds() -> dict[str, str]:
    """Distribution name → version, of the folder that the import would take.

    A build in another folder, further down the path, is shadowed and does no harm.
    """
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return {}
    folder = str(Path(spec.origin).parents[1])
    known = {
        name: found.version
        for name in BUILDS
        for found in distributions(name=name, path=[folder])
    }
    return known or {"onnxruntime": "unpacked, without metadata"}


def check_one_build(found: dict[str, str]) -> None:
    """Both builds unpack into one folder: the last one wins and neither is whole.

    Raises:
        RuntimeInstallationError: two builds, or none.
    """
    if len(found) > 1:
        both = " and ".join(f"{name} {release}" for name, release in found.items())
        raise RuntimeInstallationError(
            f"{both} are installed together and overwrite one another; "
            "uninstall both, then install one: the extra 'cpu' or the extra 'gpu'"
        )
    if not found:
        raise RuntimeInstallationError(
            "ONNX Runtime is not installed; install the extra 'cpu' or the extra 'gpu'"
        )


os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # always: it must win over the caller's
check_one_build(installed_builds())

import onnxruntime  # type: ignore[import-untyped]  # noqa: E402  (after the checks)

__all__ = ["RuntimeInstallationError", "installed_builds", "onnxruntime"]
