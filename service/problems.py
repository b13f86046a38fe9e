"""error → **problem**: the one error shape of every path (RFC 9457), but for `/v2`.

There the Open Inference Protocol has a shape of its own; the errors are the same.
`PROBLEM_TYPES` is the whole vocabulary. `docs/http.md` explains each code, and a test
holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

from starlette.responses import Response

from classifier.errors import ImageError, RequestError, SessionError
from service.errors import ItemError, ServiceError
from service.jsons import to_json

MEDIA_TYPE = "application/problem+json"
SERVER_ERROR = HTTPStatus.INTERNAL_SERVER_ERROR
OIP_PREFIX = "/v2"  # its clients read the member `error`, and show nothing without it


class ProblemType(NamedTuple):
    """What RFC 9457 calls so: a status, and a title that no request changes."""

    status: HTTPStatus
    title: str


PROBLEM_TYPES: Mapping[str, ProblemType] = {
    "malformed_request": ProblemType(
        HTTPStatus.BAD_REQUEST, "The body is not what its Content-Type says"
    ),
    "image_empty": ProblemType(
        HTTPStatus.BAD_REQUEST, "There is no image in the request"
    ),
    "route_not_found": ProblemType(
        HTTPStatus.NOT_FOUND, "There is nothing at this path"
    ),
    "model_not_found": ProblemType(HTTPStatus.NOT_FOUND, "No such model is loaded"),
    "method_not_allowed": ProblemType(
        HTTPStatus.METHOD_NOT_ALLOWED, "This path does not take this method"
    ),
    "body_timeout": ProblemType(HTTPStatus.REQUEST_TIMEOUT, "The body came too slowly"),
    "body_too_large": ProblemType(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body has too many bytes"
    ),
    "too_many_images": ProblemType(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The batch has too many images"
    ),
    "image_too_many_pixels": ProblemType(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The image has too many pixels"
    ),
    "media_type_unsupported": ProblemType(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "This Content-Type is not taken here"
    ),
    "image_format_unsupported": ProblemType(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "This is not an image of a format we take"
    ),
    "image_undecodable": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY, "The image is damaged or cut off"
    ),
    "invalid_parameter": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY, "A parameter is not allowed"
    ),
    "internal_error": ProblemType(SERVER_ERROR, "Something is wrong with the service"),
    "engine_failed": ProblemType(SERVER_ERROR, "The engine failed on this image"),
    "overloaded": ProblemType(HTTPStatus.SERVICE_UNAVAILABLE, "The service is full"),
    "draining": ProblemType(HTTPStatus.SERVICE_UNAVAILABLE, "The service is stopping"),
    "not_ready": ProblemType(
        HTTPStatus.SERVICE_UNAVAILABLE, "The service is not ready"
    ),
    "deadline_exceeded": ProblemType(
        HTTPStatus.GATEWAY_TIMEOUT, "The answer did not come in time"
    ),
}

# A cause inside the service is for the log; telling it to a stranger would leak it.
FIXED_DETAIL = "The cause is in the service's log, under this request_id."


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, ready to be written."""

    code: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status of this code."""
        return PROBLEM_TYPES[self.code].status

    def members(self, request_id: str) -> dict[str, object]:
        """The JSON object of RFC 9457, with `code` and `request_id` as extensions."""
        problem_type = PROBLEM_TYPES[self.code]
        return {
            "type": f"/docs#{self.code}",
            "title": problem_type.title,
            "status": int(problem_type.status),
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }


def problem_of(error: Exception) -> Problem:
    """The problem that a client may see of any error."""
    match error:
        case ItemError():
            problem = problem_of(error.cause)
            return Problem(problem.code, f"{error.item}: {problem.detail}")
        case ServiceError() if PROBLEM_TYPES[error.code].status is not SERVER_ERROR:
            return Problem(error.code, str(error), error.headers)
        case ServiceError():
            return Problem(error.code, FIXED_DETAIL)
        case ImageError() | RequestError() if error.code in PROBLEM_TYPES:
            return Problem(error.code, str(error))
        case SessionError():
            return Problem("engine_failed", FIXED_DETAIL)
        case _:
            return Problem("internal_error", FIXED_DETAIL)


def headers_and_body(
    problem: Problem, *, path: str, request_id: str
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The problem as what is written, in the shape that belongs to the path.

    An overload refuses more than it answers, so this goes without Starlette's
    `Response`, which takes as long as all else here.
    """
    oip = path == OIP_PREFIX or path.startswith(f"{OIP_PREFIX}/")
    members = oip_error(problem, request_id) if oip else problem.members(request_id)
    body = to_json(members)
    headers = [
        (b"cache-control", b"no-store"),
        (b"content-length", b"%d" % len(body)),
        (b"content-type", b"application/json" if oip else MEDIA_TYPE.encode()),
    ]
    for name, value in problem.headers.items():
        headers.append((name.lower().encode(), value.encode("latin-1")))
    return headers, body


def response_of(problem: Problem, *, path: str, request_id: str) -> Response:
    """The problem as a whole response."""
    headers, body = headers_and_body(problem, path=path, request_id=request_id)
    response = Response(body, status_code=problem.status)
    response.raw_headers = headers
    return response


def oip_error(problem: Problem, request_id: str) -> dict[str, object]:
    """The JSON object of the Open Inference Protocol: a text, and nothing else."""
    if problem.status is not SERVER_ERROR:
        return {"error": problem.detail}
    title, detail = PROBLEM_TYPES[problem.code].title, problem.detail
    # clients show the text and no header
    return {"error": f"{title}. {detail.replace('this request_id', request_id)}"}
