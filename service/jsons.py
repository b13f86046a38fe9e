"""values → **JSON**, by orjson; what it does not write, Python does."""

import json

import orjson

_LENIENT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ASCII = json.JSONEncoder(default=repr, separators=(",", ":"))


def to_json(value: object) -> bytes:
    """Compact JSON in UTF-8; a lone surrogate, which UTF-8 has not, becomes "?"."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # a surrogate, or an integer beyond 64 bits
        return _LENIENT.encode(value).encode(errors="replace")


def to_ascii_json(value: object) -> str:
    """Compact JSON in ASCII, on any terminal one line; what is no JSON, by its repr."""
    try:
        line = orjson.dumps(value, default=repr)
    except orjson.JSONEncodeError:
        return _ASCII.encode(value)
    return line.decode() if line.isascii() else _ASCII.encode(value)
