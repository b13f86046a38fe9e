"""Forms are split as they were joined, and broken ones are refused."""

from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MalformedRequestError, TooManyImagesError
from service.multipart import Part, read_parts

files = st.lists(st.binary(max_size=60), max_size=4)


def encoded(contents: list[bytes]) -> tuple[bytes, str]:
    """A form as a real client joins it."""
    request = httpx.Request(
        "POST",
        "http://any/",
        files=[("file", (f"{i}.png", data)) for i, data in enumerate(contents)],
    )
    return request.read(), request.headers["Content-Type"]


@given(files.filter(bool))
def test_a_form_is_split_as_a_client_joined_it(contents):
    """Also when the files contain dashes, line ends and nothing at all."""
    body, content_type = encoded(contents)

    parts = read_parts(body, content_type, max_parts=4)

    assert parts == [Part("file", content) for content in contents]


def test_the_name_of_a_file_may_have_semicolons():
    """It is a header like any other, and many of them are none."""
    name = "a;" * 63
    head = f'Content-Disposition: form-data; name=a; filename="{name[:-1]}"'
    body = f"--b\r\n{head}\r\n\r\nx\r\n--b--".encode()

    assert read_parts(body, "multipart/form-data; boundary=b", max_parts=1)


@given(st.binary(max_size=200))
def test_any_bytes_are_parts_or_an_error(body):
    """Hostile framing causes nothing else."""
    body = body.replace(b"|", b"\r\n--b")
    with suppress(MalformedRequestError, TooManyImagesError):
        read_parts(b"--b" + body, "multipart/form-data; boundary=b", max_parts=3)


@given(files.filter(bool), st.integers(1, 40))
def test_a_form_that_is_cut_off_is_refused(contents, missing):
    """Half an upload must not pass for a whole, smaller one."""
    body, content_type = encoded(contents)
    kept = body.removesuffix(b"\r\n").removesuffix(b"--")[:-missing]

    with pytest.raises(MalformedRequestError):
        read_parts(kept, content_type, max_parts=4)


def test_a_name_in_no_known_encoding_is_read_as_far_as_it_can_be():
    """The error that the field is unknown then shows it."""
    body = b'--b\r\nContent-Disposition: form-data; name="a\xff"\r\n\r\nx\r\n--b--'

    parts = read_parts(body, "multipart/form-data; boundary=b", max_parts=1)

    assert parts == [Part("a\ufffd", b"x")]


def test_more_parts_than_allowed_are_refused():
    """However small each of them is."""
    body, content_type = encoded([b""] * 5)

    with pytest.raises(TooManyImagesError, match="more than 4"):
        read_parts(body, content_type, max_parts=4)


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"--b--", "multipart/form-data", "boundary of the form has 0 characters"),
        (b"--b--", "multipart/form-data; boundary=" + "b" * 71, "has 71 characters"),
        (
            b"hello",
            "multipart/form-data; boundary=" + "b" * 70,
            "does not contain its own",
        ),
        (
            b"--b\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--b--",
            "multipart/form-data; boundary=b",
            "form-data with a name",
        ),
        (
            b"--b\r\nContent-Disposition: form-data; filename=a\r\n\r\nx\r\n--b--",
            "multipart/form-data; boundary=b",
            "form-data with a name",
        ),
        (b"--b\r\n\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b", "name"),
        (
            b"--b\r\n" + b"X: y\r\n" * 2000 + b"\r\n\r\n--b--",
            "multipart/form-data; boundary=b",
            "within 8192 bytes",
        ),
        (
            b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--"
            b"\r\n--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--",
            "multipart/form-data; boundary=b",
            "goes on after its closing boundary",
        ),
        (b"--b--", "multipart/form-data" + ";" * 65, "more than 64 semicolons"),
        (
            b"--b\r\nContent-Disposition: form-data; name=a%b\r\n\r\nx\r\n--b--"
            % (b";" * 64),
            "multipart/form-data; boundary=b",
            "more than 64 semicolons",
        ),
    ],
)
def test_what_is_wrong_with_a_form_is_said(body, content_type, said):
    """Each kind of damage in its own words."""
    with pytest.raises(MalformedRequestError, match=said):
        read_parts(body, content_type, max_parts=4)
