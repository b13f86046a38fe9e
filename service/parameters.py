"""query string → **parameters**: every one known, single, and allowed by the model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from classifier.manifest import MAX_VERSION_DIGITS
from service.errors import InvalidParameterError, shown

NAMES = ("model", "version", "top_k", "threshold", "explain")

# Of a number. float() alone would also take " 1 ", "0_1" and digits of other scripts.
NUMERALS = frozenset("0123456789.eE+-")
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a client may choose. None leaves the choice to the service or the bundle."""

    model: str | None = None
    version: int | None = None
    top_k: int | None = None
    threshold: float | None = None
    explain: bool = False


DEFAULTS = Parameters()


def read_parameters(query: bytes, *, allowed: Sequence[str] = NAMES) -> Parameters:
    """Parse the query string; `allowed` are those of the names that a route takes.

    Raises:
        InvalidParameterError: an unknown name, a name twice, or a value out of range.
    """
    if not query:
        return DEFAULTS
    # One field more than there are names: one of these is unknown or given twice, and
    # those that follow, be they thousands, need not be read.
    fields = query.split(b"&", len(allowed) + 1)[: len(allowed) + 1]
    try:
        pairs = parse_qsl(
            b"&".join(fields).decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
        )
    except ValueError as error:
        raise InvalidParameterError(
            f"the query string cannot be read; it may hold {', '.join(allowed)}, "
            "each once, as name=value joined by &"
        ) from error
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            raise InvalidParameterError(
                f"{shown(name)} is not a parameter; allowed: {', '.join(allowed)}"
            )
        if name in values:
            raise InvalidParameterError(f"{name} is given more than once")
        values[name] = value
    return Parameters(
        model=values.get("model"),
        version=_whole(values, "version"),
        top_k=_whole(values, "top_k"),
        threshold=_fraction(values, "threshold"),
        explain=_boolean(values, "explain"),
    )


def _whole(values: dict[str, str], name: str) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    # int() alone would also take "1_0", " 5 " and digits of other scripts.
    if not (text.isascii() and text.isdigit()):
        raise InvalidParameterError(
            f"{name} is {shown(text)}; a whole number from 1 on is allowed"
        )
    if len(text) > MAX_VERSION_DIGITS:  # nor has a model so many labels
        raise InvalidParameterError(
            f"{name} has {len(text)} digits; at most {MAX_VERSION_DIGITS} are allowed"
        )
    if int(text) < 1:
        raise InvalidParameterError(f"{name} is {text}; the least allowed is 1")
    return int(text)


def _fraction(values: dict[str, str], name: str) -> float | None:
    text = values.get(name)
    if text is None:
        return None
    try:
        number = float(text) if NUMERALS.issuperset(text) else math.nan
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise InvalidParameterError(
            f"{name} is {shown(text)}; a number from 0 to 1 is allowed"
        )
    return number


def _boolean(values: dict[str, str], name: str) -> bool:
    text = values.get(name, "false")
    if text.lower() not in BOOLEANS:
        raise InvalidParameterError(
            f"{name} is {shown(text)}; true or false is allowed"
        )
    return BOOLEANS[text.lower()]
