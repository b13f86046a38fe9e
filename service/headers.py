"""OpenAPI responses → **with headers**: what an answer carries beside its body."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

Headers = dict[str, dict[str, Any]]


def text(description: str) -> dict[str, Any]:
    """A header of words."""
    return {"description": description, "schema": {"type": "string"}}


EVERY: Headers = {
    "X-Request-ID": text("The request's own, or a new one; the log has it, too.")
}
TIMED: Headers = {"Server-Timing": text("Milliseconds: decode, queue, batch, infer.")}

BY_STATUS: Mapping[HTTPStatus, Headers] = {
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: {
        "Accept-Post": text(
            "The types that are taken, if the `Content-Type` or the "
            "`Content-Encoding` was not."
        ),
        "Accept-Encoding": text("The encodings that are taken, likewise."),
    },
    HTTPStatus.SERVICE_UNAVAILABLE: {
        "Retry-After": {
            "description": "Whole seconds after which to try again.",
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}


def describe_headers(paths: Mapping[str, Any]) -> None:
    """Write into every response of a document which headers it has."""
    for methods in paths.values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                by_status = BY_STATUS.get(HTTPStatus(int(status)), {})
                described = {**EVERY, **by_status, **response.get("headers", {})}
                response["headers"] = described
