"""Inference over plain HTTP: the protocol's own examples, its bounds and its errors."""

import gzip
import json
import socket
import zlib
from http import HTTPStatus

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.asking import classify_many
from service.oip.shapes import InferenceResponse
from tests.service.conftest import BLUE, GREEN, RED, running, send, wait_until
from tests.service.oip.bodies import (
    INFER,
    LENGTH,
    binary,
    elements,
    error_of,
    in_json,
    input_of,
    pixels,
)
from tests.synthetic import png


@pytest.mark.parametrize("given", ["42", ""])
def test_json_alone_is_enough(client, given):
    """As curl and KServe's clients send it."""
    response = client.post(INFER, json=in_json(RED, GREEN, id=given))

    assert response.headers["Content-Type"] == "application/json"
    assert LENGTH not in response.headers
    answer = InferenceResponse.model_validate_json(response.content)
    assert (answer.id, answer.model_name, answer.model_version) == (
        given,
        "colors",
        "1",
    )
    scores, logits = answer.outputs
    assert scores.shape == logits.shape == [2, 3]
    first = send(client, RED).json()["predictions"][0]
    assert scores.data[first["index"]] == first["score"]


def test_a_body_of_one_image_needs_no_json(client):
    """A header of 0 says so; the answer is binary then."""
    response = client.post(INFER, content=RED, headers={LENGTH: "0"})

    assert response.headers["Content-Type"] == "application/octet-stream"
    size = int(response.headers[LENGTH])
    outputs = json.loads(response.content[:size])["outputs"]
    assert [o["parameters"]["binary_data_size"] for o in outputs] == [12, 12]
    assert len(response.content) == size + 24


def test_a_request_is_logged_and_counted_as_others_are(server):
    """One line, under the route and not under its path; its images one by one."""
    headers = {"X-Request-ID": "oip-1"}
    response = server.client.post(INFER, json=in_json(RED, BLUE), headers=headers)

    assert response.headers["X-Request-ID"] == "oip-1"
    assert response.headers["Server-Timing"].startswith("decode;dur=")
    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "oip-1"]
    assert (line["model"], line["images"], line["code"]) == ("colors", 2, "ok")
    assert line["batch_size"] >= 1
    page = server.client.get("/metrics").text
    assert 'route="/v2/models/{name}/infer",status="200"' in page


ERRORS = [
    ("GET", "/v2/nowhere", {}, 404),
    ("GET", "/v2/", {}, 404),
    ("GET", "/v2/models/nobody", {}, 404),
    ("GET", "/v2/models/colors/versions/9/config", {}, 404),
    ("GET", "/v2/models/colors/versions/-1/ready", {}, 404),
    ("GET", "/v2/models/colors/versions/99999999999/ready", {}, 404),
    ("GET", f"/v2/models/colors/versions/{'9' * 5000}/ready", {}, 404),
    ("GET", "/v2/models/colors/versions/%C2%B2/ready", {}, 404),  # a digit to Python
    ("GET", INFER, {}, 405),
    ("DELETE", "/v2", {}, 405),
    ("POST", INFER, {}, 400),
    ("POST", INFER, {"content": b"{"}, 400),
    ("POST", INFER, {"content": b"[" * 100_000}, 400),
    ("POST", INFER, {"content": RED, "headers": {LENGTH: "x"}}, 400),
    ("POST", INFER, {"content": RED, "headers": {LENGTH: "-1"}}, 400),
    ("POST", INFER, {"content": RED, "headers": {LENGTH: "9" * 50}}, 400),
    ("POST", INFER, {"content": RED, "headers": {LENGTH: "9999"}}, 400),
    ("POST", INFER, binary(elements(RED), size=4), 400),
    ("POST", INFER, {"json": in_json(b"")}, 400),
    ("POST", INFER, {"json": in_json(*[RED] * 9)}, 413),
    ("POST", INFER, {"json": in_json(bytes(200_001))}, 413),
    ("POST", INFER, {"content": bytes(400_001)}, 413),
    ("POST", INFER, {"json": in_json(b"text")}, 415),
    ("POST", INFER, {"content": b"x", "headers": {"Content-Encoding": "br"}}, 415),
    ("POST", INFER, {"content": b"x", "headers": {"Content-Encoding": "gzip"}}, 400),
    ("POST", INFER, {"json": in_json(RED[:44])}, 422),
    ("POST", "/v2/repository/models/colors/load", {}, 405),
    ("POST", "/v2/models/poison/infer", {"json": in_json(b"")}, 400),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), ERRORS)
def test_every_error_has_the_shape_of_the_protocol(client, method, path, body, status):
    """Whoever found it: router, body, parser, decoder."""
    response = client.request(method, path, **body)

    found, text = error_of(response)
    assert found == status, text
    assert text
    assert response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models/colors/ready", {"name": "colors", "ready": True}),
    ],
)
def test_health_is_told_in_the_body_too(client, path, told):
    """Some clients read it and not the status."""
    assert client.get(path).json() == told


def test_what_begins_like_the_prefix_is_not_below_it(client):
    """Errors of other paths are problems, as ever."""
    response = client.get("/v2x")

    assert response.headers["Content-Type"] == "application/problem+json"


def test_a_method_that_no_configuration_allows_is_told_by_an_empty_allow(client):
    """RFC 9110, 15.5.6; a retry would be in vain."""
    response = client.post("/v2/repository/models/colors/unload", json={})

    assert (response.status_code, response.headers["Allow"]) == (405, "")


def test_an_encoding_that_is_not_known_says_which_are(client):
    """Those that tritonclient offers."""
    headers = {"Content-Encoding": "br"}
    response = client.post(INFER, content=b"x", headers=headers)

    assert response.headers["Accept-Encoding"] == "gzip, deflate, identity"


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_bomb_is_refused_at_the_bound_of_bodies(server, encoding, compress):
    """400,000 bytes here; of what is counted nothing is left over."""
    bomb = compress(bytes(100_000_000))
    response = server.client.post(
        INFER, content=bomb, headers={"Content-Encoding": encoding}
    )

    status, text = error_of(response)
    assert (status, "at most 400000 are accepted" in text) == (413, True)
    assert server.app.serving.bodies.buffered_bytes == 0


@pytest.mark.parametrize("image", [png((0, 0, 0), (1001, 1000)), bytes(200_001)])
def test_an_image_over_a_bound_names_its_position(client, image):
    """The request itself was read whole, so that its connection goes on."""
    response = client.post(INFER, json=in_json(RED, image))

    status, text = error_of(response)
    assert (status, text.partition(":")[0]) == (413, "image[1]")
    assert "Connection" not in response.headers


def test_an_error_of_the_service_does_not_tell_its_cause(server):
    """It names the id under which the log does, as clients show no header."""
    poisoned = pixels([255] * 192, [1, 8, 8, 3])
    response = server.client.post("/v2/models/poison/infer", json=poisoned)

    status, text = error_of(response)
    request_id = response.headers["X-Request-ID"]
    assert status == HTTPStatus.INTERNAL_SERVER_ERROR
    assert text == (
        "The engine failed on this image. pixels[0]: The cause is in the service's "
        f"log, under {request_id}."
    )
    faults = [line for line in server.log.getvalue().splitlines() if request_id in line]
    assert any("Gather" in line for line in faults)


def test_a_service_that_drains_says_so_to_clients_of_the_protocol(settings_for):
    """Health is red with a status, and nothing is inferred."""
    with running(settings_for(drain_notice_s=0)) as served:
        serving = served.app.serving
        serving.draining = serving._refusing = True
        responses = [
            served.client.get("/v2/health/ready"),
            served.client.get("/v2/models/colors/ready"),
            served.client.post(INFER, json=in_json(RED)),
        ]
        live = served.client.get("/v2/health/live")
        index = served.client.post("/v2/repository/index").json()
        serving.draining = serving._refusing = False

    assert [error_of(response)[0] for response in responses] == [503] * 3
    assert all(response.headers["Retry-After"] == "1" for response in responses)
    assert live.json() == {"live": True}
    assert {entry["state"] for entry in index} == {"UNAVAILABLE"}
    assert {entry["reason"] for entry in index} == {
        "the service is stopping; another process may answer"
    }


def test_a_body_that_comes_too_slowly_is_refused_in_the_same_shape(server):
    """The bound is that of every body."""

    head = f"POST {INFER} HTTP/1.1\r\nHost: any\r\nContent-Length: 9\r\n\r\n{{"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))

    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "error": "the body did not arrive within 2 s"
    }


def test_a_timeout_shortens_what_the_service_grants_and_never_lengthens_it(
    server, monkeypatch
):
    """One of an hour changes nothing, and one of 0 is none."""
    deadlines = []

    async def note(*given, deadline):
        deadlines.append(deadline)
        return await classify_many(*given, deadline=deadline)

    monkeypatch.setattr("service.routes.infer.classify_many", note)
    for timeout_us in (3_600_000_000, 9_000_000, 0):
        body = in_json(RED, parameters={"timeout": timeout_us})
        server.client.post(INFER, json=body).raise_for_status()
    server.client.post(INFER, json=in_json(RED)).raise_for_status()
    hour, shorter, zero, none = deadlines

    assert shorter < hour < zero < none


def test_a_client_that_leaves_takes_its_pixels_along(settings_for):
    """Its request ends, and nothing of its body is held."""
    slow = np.full((4, 8, 8, 3), 249, np.uint8)
    request = binary(
        slow.tobytes(), name="pixels", datatype="UINT8", shape=list(slow.shape)
    )
    with running(settings_for(lanes=1, batch=1)) as served:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{served.url}/v2/models/poison/infer",
                **request,
                timeout=httpx.Timeout(10, read=0.05),
            )
        wait_until(lambda: '"client_gone"' in served.log.getvalue())
        held = served.app.serving.bodies.buffered_bytes
        served.client.post(INFER, json=in_json(RED)).raise_for_status()

    assert held == 0


pieces = st.lists(
    st.sampled_from(
        [
            json.dumps(in_json(RED)).encode(),
            json.dumps(
                {"inputs": [input_of(parameters={"binary_data_size": 9})]}
            ).encode(),
            elements(RED),
            RED,
            b'{"inputs":[',
            b"]}",
            b"\xff\x00",
            gzip.compress(b"{}"),
        ]
    )
    | st.binary(max_size=20),
    max_size=4,
).map(b"".join)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    body=pieces,
    length=st.none() | st.integers(0, 900),
    encoding=st.sampled_from(["", "identity", "gzip", "deflate", "br"]),
)
def test_no_body_breaks_the_service(client, body, length, encoding):
    """It is answered, or refused in the protocol's shape."""
    headers = {"Content-Encoding": encoding}
    if length is not None:
        headers[LENGTH] = str(length)

    response = client.post(INFER, content=body, headers=headers)

    if response.status_code != 200:
        assert error_of(response)[0] < 500
