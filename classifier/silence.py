"""Pillow and libtiff → **silence**: what they would warn of, log, or print."""

import ctypes
import logging
import re
import warnings
from functools import cache
from pathlib import Path

import PIL

PILLOW_WARNING = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def silence() -> None:
    """Pillow warns of odd but readable files and logs broken ones, and libtiff writes
    a line to stderr for each odd tag: hostile files must not flood a server's log.

    `warnings.catch_warnings` is not safe in threads, so one filter is put in, once.
    """
    if PILLOW_WARNING not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    _silence_logs()


@cache
def _silence_logs() -> None:
    """Take libtiff's handlers off; Pillow offers no way to, its errors still arrive."""
    # without any handler Python would print to stderr; an application's own still hear
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    bundled = Path(PIL.__file__).parents[1] / "pillow.libs"  # where wheels put it
    for library in bundled.glob("libtiff*.so*"):
        libtiff = ctypes.CDLL(str(library))  # the one that Pillow has loaded already
        libtiff.TIFFSetErrorHandler(None)
        libtiff.TIFFSetWarningHandler(None)
