"""The door to ONNX Runtime: it wins over the environment, and says what is missing.

What it prevents is tested with the project's own promises (tests/project).
"""

import pytest

from classifier.runtime import (
    RuntimeInstallationError,
    check_one_build,
    installed_builds,
)
from tests.classifier.processes import python


def test_the_environment_cannot_turn_telemetry_on():
    """Set before the import, and set even where it says 0."""
    code = (
        "import os, sys\n"
        "os.environ['ORT_DISABLE_TELEMETRY'] = '0'\n"
        "from classifier.runtime import onnxruntime\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )

    assert python(code).stdout.split() == ["1"]


def test_no_build_at_all_is_told_with_its_remedy():
    """The plain message would be "No module named 'onnxruntime'"."""
    with pytest.raises(RuntimeInstallationError, match="install the extra 'cpu' or"):
        check_one_build({})


def test_two_builds_are_told_by_name():
    """Whoever has to uninstall them needs to know which."""
    two = {"onnxruntime": "1.31.0", "onnxruntime-gpu": "1.31.1"}

    with pytest.raises(RuntimeInstallationError, match=r"gpu 1\.31\.1 are installed"):
        check_one_build(two)


def test_this_environment_has_one():
    """As every environment that this project makes."""
    check_one_build(installed_builds())
