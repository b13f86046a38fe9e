"""Threads that wait for each other in a training do not keep the cores from others."""

import os
import subprocess
import sys

import pytest

ASK = "import os, training; print(os.environ.get('GOMP_SPINCOUNT'))"
OURS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({}, "30000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ],
    ids=["no wish", "a count", "a policy"],
)
def test_how_long_threads_spin_is_said_unless_the_user_has_said_it(wish, told):
    """By the environment, which the library reads once, when torch is loaded."""
    inherited = {name: value for name, value in os.environ.items() if name not in OURS}

    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        env=inherited | wish,
        capture_output=True,
        text=True,
        check=True,
    )

    assert answer.stdout.strip() == told


def test_torch_is_loaded_after_that():
    """Whichever module of training is imported first."""
    code = "import sys, training; print('torch' in sys.modules)"

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "False"
