"""The OpenAPI document says what the application does, and does what it says."""

import base64
import re
from asyncio import _get_running_loop
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from service import examples
from service.app import project_version
from service.asking import LATE
from service.engine.lanes import NO_LANE
from service.engine.line import no_room
from service.errors import DrainingError
from service.problems import PROBLEM_TYPES
from tests.service.conftest import RED, running
from tests.synthetic import png

WITH_INPUT = [
    ("/classify", "POST"),
    ("/classify/batch", "POST"),
    ("/models/{name}", "GET"),
    ("/v2/models/{name}/infer", "POST"),
    ("/v2/models/{name}/versions/{version}/infer", "POST"),
]
NAMED = [  # any text is a name, and most are of nothing
    ("/v2/models/{name}", "GET"),
    ("/v2/models/{name}/versions/{version}", "GET"),
    ("/v2/models/{name}/ready", "GET"),
    ("/v2/models/{name}/versions/{version}/ready", "GET"),
    ("/v2/models/{name}/config", "GET"),
    ("/v2/models/{name}/versions/{version}/config", "GET"),
]
WITHOUT_INPUT = [
    ("/models", "GET"),
    ("/livez", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
    ("/v2", "GET"),
    ("/v2/health/live", "GET"),
    ("/v2/health/ready", "GET"),
    ("/v2/repository/index", "POST"),
]

NAMES = {
    ("/classify", "post"): "classify",
    ("/classify/batch", "post"): "classify_batch",
    ("/models", "get"): "list_models",
    ("/models/{name}", "get"): "get_model",
    ("/livez", "get"): "check_live",
    ("/readyz", "get"): "check_ready",
    ("/metrics", "get"): "get_metrics",
}


@pytest.fixture(scope="module")
def schema(server):
    """The document that a running server gives."""
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def has_null_in_a_form(case: schemathesis.Case) -> bool:
    """Said to break the schema, and sent as four letters: a file as any other."""
    form = case.media_type == "multipart/form-data" and isinstance(case.body, dict)
    return form and None in case.body.values()


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        *((*operation, GenerationMode.POSITIVE) for operation in WITH_INPUT),
        *((*operation, GenerationMode.NEGATIVE) for operation in WITH_INPUT),
        *((*operation, GenerationMode.POSITIVE) for operation in NAMED),
        *((*operation, GenerationMode.POSITIVE) for operation in WITHOUT_INPUT),
    ],
)
def test_the_service_keeps_its_document(schema, path, method, mode):
    """No generated request meets a 5xx, or an answer that is not documented."""
    cases = schema[path][method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def check(case):
        assume(not has_null_in_a_form(case))
        # Random bytes are a valid body by the schema and yet no image.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()


def test_every_route_is_documented(client, server):
    """Those for people apart."""
    documented = set(client.get("/openapi.json").json()["paths"])

    assert documented == {path for path, _ in [*WITH_INPUT, *NAMED, *WITHOUT_INPUT]}


def test_every_operation_has_a_name_for_generated_clients(client):
    """A generator makes it the name of a function; it does not change by the way."""
    paths = client.get("/openapi.json").json()["paths"]

    names = {
        (path, method): operation["operationId"]
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    assert NAMES.items() <= names.items()
    # as FastAPI makes them up, of a function and its path
    assert [name for name in names.values() if name.endswith(("_get", "_post"))] == []


def test_the_shapes_are_those_that_generated_clients_can_send_and_read(client):
    """TypeScript would have to send what has a default; Python takes no constant true.

    (openapi-typescript 7, openapi-generator 7)
    """
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    members = {
        f"{name}.{member}": fact
        for name, schema in schemas.items()
        for member, fact in schema.get("properties", {}).items()
    }

    assert members.keys() >= {"RequestInput.parameters", "Answer.abstained"}
    assert [name for name, fact in members.items() if "default" in fact] == []
    kinds = ((n, k) for n, f in members.items() for k in (f, *f.get("anyOf", ())))
    assert [name for name, kind in kinds if kind.get("const") is True] == []


def test_the_document_is_built_once_and_beside_the_event_loop(settings_for):
    """It takes 0.2 s, in which no image would be answered."""
    with running(settings_for()) as server, ThreadPoolExecutor(4) as askers:
        build, on_loop = server.app.openapi, []

        def build_and_note():
            on_loop.append(_get_running_loop() is not None)
            return build()

        server.app.openapi = build_and_note
        url = f"{server.url}/openapi.json"
        bodies = {each.content for each in askers.map(httpx.get, [url] * 4)}

    assert len(bodies) == 1
    assert on_loop == [False]


def test_no_route_promises_an_error_of_the_framework(client):
    """Those of wrong parameters are problems, as all errors are."""
    assert "ValidationError" not in client.get("/openapi.json").text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v2/models/{name}/infer", "v2_infer"),
        ("/v2/models/{name}/versions/{version}/infer", "v2_infer_version"),
    ],
)
def test_a_binary_inference_is_documented_with_its_headers(client, path, name):
    """A generated client can send them, and knows where the JSON of an answer ends."""
    operation = client.get("/openapi.json").json()["paths"][path]["post"]
    headers = {
        p["name"]: p["schema"] for p in operation["parameters"] if p["in"] == "header"
    }
    answer = operation["responses"]["200"]

    assert operation["operationId"] == name
    assert headers == {
        "Inference-Header-Content-Length": {"type": "integer", "minimum": 0},
        "Content-Encoding": {"type": "string", "enum": ["gzip", "deflate", "identity"]},
    }
    length = answer["headers"]["Inference-Header-Content-Length"]
    assert length["schema"] == {"type": "integer", "minimum": 1}
    assert answer["content"]["application/octet-stream"]["schema"]["format"] == "binary"


# What any server of HTTP sends, of which no client asks the document.
COMMON = {"cache-control", "content-length", "content-type", "date"} | {
    "connection",
    "x-content-type-options",
}
INFER = "/v2/models/{name}/infer"
TEXT = {"Content-Type": "text/plain"}
ANSWERED = [
    (200, "/classify", {"json": {"image": examples.PNG_BASE64}}),
    (200, "/classify/batch", {"json": {"images": [examples.PNG_BASE64]}}),
    (200, "/models", {}),
    (200, "/models/{name}", {}),
    (200, "/livez", {}),
    (200, "/readyz", {}),
    (200, "/metrics", {}),
    (200, "/v2", {}),
    (200, "/v2/models/{name}", {}),
    (200, INFER, {"json": examples.INFERENCE}),
    (200, "/v2/repository/index", {"content": b""}),
    (400, "/classify", {"content": b""}),
    (400, INFER, {"content": b"{"}),
    (404, "/classify", {"params": {"model": "none"}, "content": b"x"}),
    (415, "/classify", {"content": b"x", "headers": TEXT}),
    (415, "/classify/batch", {"content": b"x", "headers": TEXT}),
    (415, INFER, {"content": b"x", "headers": {"Content-Encoding": "br"}}),
    (422, "/classify", {"params": {"size": 1}, "content": b"x"}),
    (422, "/models/{name}", {"params": {"size": 1}}),
]


@pytest.mark.parametrize(("status", "path", "request_"), ANSWERED)
def test_the_type_and_every_header_of_an_answer_are_documented(
    client, status, path, request_
):
    """With each the id of the request, by which the log is searched."""
    method = "POST" if {"json", "content"} & set(request_) else "GET"
    document = client.get("/openapi.json").json()
    documented = document["paths"][path][method.lower()]["responses"][str(status)]

    answer = client.request(method, path.format(name="colors"), **request_)

    assert answer.status_code == status
    assert answer.headers["Content-Type"].partition(";")[0] in documented["content"]
    names = {name.lower() for name in documented["headers"]}
    assert set(answer.headers) - COMMON <= names
    assert "x-request-id" in names


def test_no_parameter_may_be_null(client):
    """In a query or a path `null` is a text, and the service would refuse it. What is
    not in the path need not be sent.
    """
    paths = client.get("/openapi.json").json()["paths"]
    parameters = [
        parameter
        for methods in paths.values()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
    ]
    types = {(each["name"], each["schema"].get("type")) for each in parameters}
    needed = {each["in"] for each in parameters if each.get("required")}

    assert needed == {"path"}
    assert {name for name, _ in types} >= {"model", "version", "top_k", "threshold"}
    assert {kind for _, kind in types} == {"string", "integer", "number", "boolean"}


def test_any_route_may_meet_a_bug(client):
    """A client that reads no 500 would take its body for an answer."""
    paths = client.get("/openapi.json").json()["paths"]
    without = [
        (path, method)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if "500" not in operation["responses"]
    ]

    assert without == []


def test_every_problem_has_an_example(client):
    """In the document as a whole, and at the routes where it can occur."""
    document = client.get("/openapi.json").json()

    titles = {code: problem_type.title for code, problem_type in PROBLEM_TYPES.items()}
    assert document["x-problems"] == {
        code: {"status": status, "title": title, "detail": examples.DETAILS[code]}
        for code, (status, title) in PROBLEM_TYPES.items()
    }
    classify = document["paths"]["/classify"]["post"]["responses"]
    shown = {
        code: example["summary"]
        for status, response in classify.items()
        if status != "200"
        for code, example in response["content"]["application/problem+json"][
            "examples"
        ].items()
    }
    del titles["route_not_found"], titles["method_not_allowed"]
    assert shown == titles
    assert classify["413"]["description"] == HTTPStatus(413).phrase


def test_a_body_is_documented_with_what_it_must_hold(client):
    """A generated client sends a field that is required, and no other."""
    paths = client.get("/openapi.json").json()["paths"]
    one, many = (
        paths[path]["post"]["requestBody"]["content"]
        for path in ("/classify", "/classify/batch")
    )

    binary = {"type": "string", "format": "binary"}
    assert one["image/*"] == one["application/octet-stream"] == {"schema": binary}
    for body, field, kind in (
        (one, "file", binary),
        (many, "files", {"type": "array", "items": binary, "minItems": 1}),
    ):
        assert body["multipart/form-data"]["schema"] == {
            "type": "object",
            "required": [field],
            "additionalProperties": False,
            "properties": {field: kind},
        }


def test_the_document_says_what_it_is_of(client):
    """Name and version of the service."""
    info = client.get("/openapi.json").json()["info"]

    assert (info["title"], info["version"]) == ("Linnaeus", project_version())


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
SAID = {
    "malformed_request": ("/classify", {"content": PART, "headers": FORM}),
    "image_empty": ("/classify", {"content": b""}),
    "route_not_found": ("/clasify", {}),
    "model_not_found": ("/classify", {"params": {"model": "dog"}}),
    "body_too_large": ("/classify", {"content": bytes(30_000_000)}),
    "too_many_images": ("/classify/batch", {"json": {"images": [""] * 9}}),
    "image_too_many_pixels": ("/classify", {"content": png((0, 0, 0), (60_000, 60))}),
    "media_type_unsupported": ("/classify", {"content": b"x", "headers": TEXT}),
    "image_format_unsupported": ("/classify", {"content": b"text"}),
    "image_undecodable": ("/classify", {"content": RED[:44]}),
    "invalid_parameter": ("/classify", {"params": {"top_k": 2000}}),
}


@pytest.mark.parametrize("code", SAID)
def test_the_example_of_an_error_is_what_is_said(client, code):
    """But for the numbers, and which models are loaded."""
    path, request = SAID[code]

    problem = client.post(path, **request).json()

    said, example = (
        re.sub(r"\d+|loaded are .*", "…", text)
        for text in (problem["detail"], examples.DETAILS[code])
    )
    assert (problem["code"], said) == (code, example)


def asked(*data: str, name: str = "image") -> dict:
    """A request of the Open Inference Protocol."""
    tensor = {"name": name, "datatype": "BYTES", "shape": [1], "data": list(data)}
    return {"inputs": [tensor]}


CUT_OFF = base64.b64encode(RED[:44]).decode()
VAST = base64.b64encode(png((0, 0, 0), (60_000, 60))).decode()
BROTLI = {"Content-Encoding": "br"}
SAID_BY_INFER = {
    "malformed_request": {
        "json": {"inputs": [*asked(name="a")["inputs"], *asked(name="b")["inputs"]]}
    },
    "media_type_unsupported": {"content": b"x", "headers": BROTLI},
    "image_empty": {"json": asked("")},
    "image_too_many_pixels": {"json": asked(VAST)},
    "image_format_unsupported": {"json": asked("dGV4dA==")},
    "image_undecodable": {"json": asked(CUT_OFF)},
}


@pytest.mark.parametrize("code", SAID_BY_INFER)
def test_the_example_of_an_error_of_infer_is_what_is_said(client, code):
    """There the type of a body is not looked at, and an image is one of a tensor."""
    infer = "/v2/models/{name}/infer"
    responses = client.get("/openapi.json").json()["paths"][infer]["post"]["responses"]

    answer = client.post(infer.format(name="colors"), **SAID_BY_INFER[code])

    response = responses[str(answer.status_code)]["content"]["application/json"]
    example = response["examples"][code]["value"]["error"]
    said = answer.json()["error"]
    assert re.sub(r"\d+", "…", said) == re.sub(r"\d+", "…", example)


def test_the_example_of_a_wrong_version_is_what_is_said(client):
    """Of a model that is asked about; it takes no other parameter."""
    paths = client.get("/openapi.json").json()["paths"]
    response = paths["/models/{name}"]["get"]["responses"]["422"]["content"]

    said = client.get("/models/colors", params={"version": "latest"}).json()["detail"]

    shown = response["application/problem+json"]["examples"]["invalid_parameter"]
    assert shown["value"]["detail"] == said


def test_the_example_of_a_refusal_for_a_while_is_what_is_said():
    """Of a queue that is full, without lanes, and past the deadline."""
    full = no_room(("imagenet", 1), 256, 1, capacity=256, retry_after_s=1)

    assert examples.DETAILS["overloaded"] == str(full)
    assert examples.DETAILS["not_ready"] == NO_LANE
    assert examples.DETAILS["deadline_exceeded"] == LATE
    assert examples.DETAILS["draining"] == str(DrainingError())


def test_the_example_answers_are_what_is_answered(client):
    """To the last digit: the examples are sent as they stand in the document."""
    document = client.get("/openapi.json").json()

    for path in ("/classify", "/classify/batch"):
        operation = document["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]["example"]
        said = operation["responses"]["200"]["content"]["application/json"]["example"]
        headers = {"X-Request-ID": examples.REQUEST_ID}
        assert client.post(path, json=body, headers=headers).json() == said


def test_the_example_of_an_inference_is_what_is_answered(client):
    """With and without the version in its path."""
    document = client.get("/openapi.json").json()

    for path in (
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}/infer",
    ):
        operation = document["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]["example"]
        said = operation["responses"]["200"]["content"]["application/json"]["example"]
        place = path.format(name="colors", version=1)
        assert client.post(place, json=body).json() == said
