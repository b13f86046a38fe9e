"""Whatever is sent, the answer is never a 5xx, and the next request is served."""

import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.conftest import RED, send

bounded = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

types = st.sampled_from(
    [
        "image/png",
        "application/octet-stream",
        "application/json",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "text/plain; charset=é",
        "",
    ]
)
# Bytes that are nearly right: pieces of forms, of JSON and of an image, in any order.
pieces = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"--b\r\n",
                b"--b--",
                b"\r\n\r\n",
                b'Content-Disposition: form-data; name="file"',
                b'{"image":"',
                b'"}',
                b"[",
                b"\xed\xa0\x80",
                RED,
                RED[:30],
            ]
        ),
        st.binary(max_size=30),
    ),
    max_size=8,
).map(b"".join)


@bounded
@given(
    path=st.sampled_from(["/classify", "/classify/batch"]),
    content_type=types,
    body=pieces,
    query=st.text(max_size=20),
)
def test_no_body_breaks_the_service(client, path, content_type, body, query):
    """Forms, JSON and images, damaged in every way."""
    response = client.post(
        path,
        content=body,
        params=query,
        headers={"Content-Type": content_type.encode()},
    )

    assert response.status_code < 500, response.text
    assert "request_id" in response.text or response.status_code == 200


@bounded
@given(
    name=st.sampled_from(
        ["X-Request-ID", "Content-Encoding", "Expect", "Accept", "Content-Length"]
    ),
    value=st.binary(max_size=40).map(lambda value: value.translate(None, b"\r\n\x00")),
)
def test_no_header_breaks_the_service(server, name, value):
    """Sent as raw bytes, because a client library would refuse to."""
    head = b"POST /classify HTTP/1.1\r\nHost: any\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + name.encode() + b": " + value + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answered = connection.recv(65536)

    assert answered == b"" or answered.startswith(b"HTTP/1.1 4"), answered


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_zeros_before_a_length_change_nothing(server, path):
    """However many: `int` takes 4,300 digits, and the answer was a 500."""
    head = f"POST {path} HTTP/1.1\r\nHost: any\r\nContent-Type: image/png\r\n"
    if path != "/classify":
        head = head.replace("image/png", "application/json")
    length = "0" * 5_000 + str(len(RED))
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {length} \r\n\r\n".encode() + RED)
        answered = connection.recv(65536)

    status = b"200" if path == "/classify" else b"400"
    assert answered.startswith(b"HTTP/1.1 " + status), answered


def test_the_service_is_as_well_as_before(client):
    """After all of that."""
    assert send(client, RED).status_code == 200
