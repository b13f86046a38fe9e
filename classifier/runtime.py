"""The one door to **onnxruntime**: telemetry off, exactly one build installed.

Every module that needs ONNX Runtime imports it from here; a test scans for others.
This module acts on import, against the house rule, because both of its duties must be
done before the first `import onnxruntime` anywhere in the process: the official wheels
send telemetry and write a device id unless `ORT_DISABLE_TELEMETRY=1` is set by then.
"""

import os
from importlib.metadata import PackageNotFoundError, version

BUILDS = ("onnxruntime", "onnxruntime-gpu")


class RuntimeInstallationError(ImportError):
    """ONNX Runtime is missing, or two builds of it overwrite one another."""


def installed_builds() -> dict[str, str]:
    """Distribution name → version of every ONNX Runtime build that is installed."""
    found = {}
    for name in BUILDS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
