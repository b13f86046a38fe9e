"""Every error, on every path, has the one documented shape."""

import io
import json
import re
import socket
from http import HTTPStatus
from types import SimpleNamespace

import pytest
from starlette.types import Receive, Scope, Send

from classifier import errors as classifier_errors
from service import errors as service_errors
from service.exchange import RequestLog, RequestMiddleware
from service.logs import build_log
from service.metrics import Metrics
from service.problems import PROBLEM_TYPES, problem_of
from service.settings import Settings
from service.shapes import ProblemDetails
from tests.service.conftest import RED
from tests.synthetic import png

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}

CASES = [
    ("GET", "/nowhere", {}, 404, "route_not_found"),
    ("POST", "/classify/", {"content": RED}, 404, "route_not_found"),
    ("GET", "/classify", {}, 405, "method_not_allowed"),
    ("DELETE", "/models", {}, 405, "method_not_allowed"),
    ("GET", "/models/nobody", {}, 404, "model_not_found"),
    ("GET", "/models/colors?version=x", {}, 422, "invalid_parameter"),
    ("GET", "/models/colors?version=9", {}, 404, "model_not_found"),
    ("POST", "/classify?model=nobody", {"content": RED}, 404, "model_not_found"),
    ("POST", "/classify", {"content": b""}, 400, "image_empty"),
    ("POST", "/classify", {"content": b"text"}, 415, "image_format_unsupported"),
    ("POST", "/classify", {"content": RED[:44]}, 422, "image_undecodable"),
    ("POST", "/classify", {"content": b"x" * 200_001}, 413, "body_too_large"),
    (
        "POST",
        "/classify",
        {"content": png((0, 0, 0), (1001, 1000))},
        413,
        "image_too_many_pixels",
    ),
    ("POST", "/classify", {"data": {"a": "b"}}, 415, "media_type_unsupported"),
    (
        "POST",
        "/classify",
        {"content": RED, "headers": {"Content-Encoding": "gzip"}},
        415,
        "media_type_unsupported",
    ),
    ("POST", "/classify", {"content": b"{", "headers": JSON}, 400, "malformed_request"),
    ("POST", "/classify", {"json": {"image": "*"}}, 400, "malformed_request"),
    ("POST", "/classify", {"json": {"image": ""}}, 400, "image_empty"),
    ("POST", "/classify", {"json": {"picture": ""}}, 422, "invalid_parameter"),
    ("POST", "/classify", {"json": {"image": 1}}, 400, "malformed_request"),
    (
        "POST",
        "/classify",
        {"content": b"[" * 100_000, "headers": JSON},
        400,
        "malformed_request",
    ),
    (
        "POST",
        "/classify",
        {"json": {str(i): i for i in range(99)}},
        413,
        "too_many_images",
    ),
    (
        "POST",
        "/classify",
        {"content": b"--b", "headers": FORM},
        400,
        "malformed_request",
    ),
    ("POST", "/classify", {"content": b"--b--", "headers": FORM}, 400, "image_empty"),
    ("POST", "/classify", {"files": [("file", RED)] * 2}, 413, "too_many_images"),
    (
        "POST",
        "/classify?model=poison",
        {"content": png((255, 0, 0))},
        500,
        "engine_failed",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), CASES)
def test_an_error_is_a_problem(client, method, path, body, status, code):
    """RFC 9457, with a stable code and the id of the request."""
    response = client.request(method, path, **body)

    problem = ProblemDetails.model_validate_json(response.content)
    assert (response.status_code, problem.code) == (status, code), problem.detail
    assert problem.status == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert problem.request_id == response.headers["X-Request-ID"]
    assert problem.type == f"/docs#{code}"


def test_a_method_that_is_not_allowed_says_which_are(client):
    """RFC 9110 wants `Allow`."""
    assert client.get("/classify").headers["Allow"] == "POST"
    assert client.post("/models").headers["Allow"] == "GET, HEAD"


def test_a_type_that_is_not_taken_says_which_are(client):
    """And helps those whom curl's default has surprised."""
    response = client.post("/classify", data={"a": "b"})

    assert "image/*" in response.headers["Accept-Post"]
    assert "curl" in response.json()["detail"]


def test_every_error_class_has_its_code_and_status():
    """One that is not in the table could not be told."""
    kinds = [
        kind
        for kind in vars(service_errors).values()
        if isinstance(kind, type) and issubclass(kind, service_errors.ServiceError)
    ]

    assert len(kinds) > 1
    for kind in kinds:
        assert kind.code in PROBLEM_TYPES, kind
    of_images = classifier_errors.ImageError.__subclasses__()
    assert {kind.code for kind in of_images} <= PROBLEM_TYPES.keys()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (classifier_errors.EmptyImageError, 400),
        (classifier_errors.ImageFormatError, 415),
        (classifier_errors.ImageTooLargeError, 413),
        (classifier_errors.ImageDecodeError, 422),
        (classifier_errors.RequestError, 422),
        (classifier_errors.SessionError, 500),
        (classifier_errors.OutOfMemoryError, 500),
        (classifier_errors.BundleError, 500),
        (RuntimeError, 500),
    ],
)
def test_an_error_of_the_classifier_has_its_status(kind, status):
    """What the sender did wrong is said; what broke inside is not."""
    problem = problem_of(kind("the cause"))

    assert problem.status == status
    assert ("the cause" in problem.detail) == (status < 500)


def test_every_code_is_documented(repository):
    """docs/http.md has a row for each, with its status."""
    text = (repository / "docs" / "http.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", text, re.MULTILINE))

    assert rows == {code: str(int(kind.status)) for code, kind in PROBLEM_TYPES.items()}


async def test_an_unforeseen_error_is_a_500_that_says_nothing(capsys):
    """The cause is in the log, under the request's id."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the password is hunter2")

    sent = []

    async def send(message):
        sent.append(message)

    log = build_log(Settings(log_format="json"))
    request_log, state = RequestLog(log, Metrics()), SimpleNamespace(draining=False)
    app = RequestMiddleware(broken, request_log=request_log, state=state)
    await app({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send)

    start, body = sent
    problem = ProblemDetails.model_validate_json(body["body"])
    assert start["status"] == problem.status == HTTPStatus.INTERNAL_SERVER_ERROR
    assert b"hunter2" not in body["body"]
    logged = capsys.readouterr().out
    assert "hunter2" in logged
    assert problem.request_id in logged


@pytest.mark.parametrize(
    ("wait_s", "told"), [(0.02, "1"), (1.01, "1"), (1.6, "2"), (7.7, "8")]
)
def test_retry_after_is_the_nearest_second_and_never_none(wait_s, told):
    """Rounded up, 1.01 s would be told as twice what it is."""
    error = service_errors.OverloadedError("full", retry_after_s=wait_s)

    assert problem_of(error).headers["Retry-After"] == told


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_fault_in_the_log_shows_no_variable(log_format):
    """Those of its frames can be a client's image."""
    stream = io.StringIO()
    log = build_log(Settings(log_format=log_format), stream)
    image = b"the bytes of " + b"a photo"

    try:
        raise RuntimeError(f"{len(image)} bytes")
    except RuntimeError as error:
        log.error("fault", exc_info=error)

    logged = stream.getvalue()
    assert "20 bytes" in logged
    assert image.decode() not in logged


def cause_of(server, request_id):
    """The log line of the fault with that id, as text; none is an error."""
    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    (line,) = [
        line
        for line in lines
        if line["event"] == "fault" and line["request_id"] == request_id
    ]
    return json.dumps(line)


# on the fast path, or through ASGI
@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "identity"}])
def test_the_cause_of_a_failed_run_is_in_the_log(server, headers):
    """Under the id of the request, as its answer says; without a pixel of the image."""
    response = server.client.post(
        "/classify?model=poison", content=png((255, 0, 0)), headers=headers
    )

    cause = cause_of(server, response.json()["request_id"])
    assert "Gather" in cause
    assert "array(" not in cause
    assert "Gather" not in response.text


def test_the_cause_of_a_failed_run_is_in_the_log_for_an_image_of_a_batch(server):
    """Under the id of that image, though the request succeeded."""
    files = [("files", RED), ("files", png((255, 0, 0)))]
    response = server.client.post("/classify/batch?model=poison", files=files)

    error = response.json()["results"][1]["error"]
    assert error["request_id"] == response.headers["X-Request-ID"] + "/1"
    assert "Gather" in cause_of(server, error["request_id"])
    assert "Gather" not in response.text


def test_bytes_that_are_not_http_are_refused(server):
    """By the server, before there is a request."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"\x00\xffnonsense\r\n\r\n")

        assert connection.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "path", ["/{}", "/models/{}", "/classify?model={}", "/v2/models/{}"]
)
def test_what_an_error_repeats_is_marked_where_it_is_cut(client, path):
    """A long name stays a short error, and nobody takes its beginning for all of it."""
    method = "POST" if path.startswith("/classify") else "GET"

    text = client.request(method, path.format("x" * 100), content=RED).text

    assert "xxx…'" in text
    assert "x" * 81 not in text
