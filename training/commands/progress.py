"""long work → **lines on stderr** that say what it is at."""

import logging
import sys


def say_steps() -> None:
    """Show what the training package logs of its progress: one plain line each."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("training")
    logger.handlers[:] = [lines]
    logger.setLevel(logging.INFO)
    logger.propagate = False
