"""What is an image in a body is told strictly, and in small steps."""

import base64
import binascii
import json
import re
import sys
import threading
from functools import partial

import pytest

from service import images
from service.errors import (
    InvalidParameterError,
    MalformedRequestError,
    TooManyImagesError,
)
from service.images import BASE64_SLICE, JSON, read_image, read_images


def as_json(text: str) -> bytes:
    """A body with one image."""
    return json.dumps({"image": text}).encode()


@pytest.mark.parametrize("size", [1, 5, 6, 7, 11, 12, 13, 18, 100])
async def test_base64_is_the_same_in_slices_as_in_one_piece(monkeypatch, size):
    """Also where a slice ends in the middle of an image, or just with it."""
    monkeypatch.setattr(images, "BASE64_SLICE", 8)
    sent = bytes(range(size))

    assert await read_image(as_json(base64.b64encode(sent).decode()), JSON) == sent


@pytest.mark.parametrize(
    "text",
    [
        "QUJDREU=QUJD",  # padding where a slice ends, and more after it
        "QUJDRA==QUJDREVG",
        "QUJDREVGQ",
        "QUJDREVG\n",
        "QUJDREV\u00e9QUJD",
        "QUJDR=VGQUJDREVG",
    ],
)
async def test_what_is_wrong_in_one_piece_is_wrong_in_slices(monkeypatch, text):
    """A stray character is an error, wherever the slices begin."""
    monkeypatch.setattr(images, "BASE64_SLICE", 8)
    with pytest.raises(ValueError):  # noqa: PT011  (binascii words it as it likes)
        binascii.a2b_base64(text, strict_mode=True)

    with pytest.raises(MalformedRequestError, match="is not base64"):
        await read_image(as_json(text), JSON)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("QUJD\nREVG", r"'\n' at position 4; send it without line breaks and spaces"),
        ("QUJDREVGQUI=\r\n", r"'\r' at position 12; send it without line breaks"),
        ("QUJDREVGQUJD RE", "' ' at position 12; send it without"),
        ("QUJDREVG-_8=", "'-' at position 8; send the alphabet with + and /"),
        ("QUJDREVG_-8=", "'_' at position 8; send the alphabet with + and /"),
        ("QUJDREVGQ%JD", "'%' at position 9"),
        ("QUJDREV\u00e9QUJD", "'\u00e9' at position 7"),
        ("QUJDREVGQ", "is not base64: 9 characters, not a multiple of 4"),
        ("QUJDRA==QUJDREVG", "padding"),
        ("DATA:image/png;base64,QUJD", "is a data: URL"),
    ],
)
async def test_what_is_wrong_with_base64_is_named(monkeypatch, text, said):
    """A stray character with its place in the whole text, and with what was meant."""
    monkeypatch.setattr(images, "BASE64_SLICE", 8)

    with pytest.raises(MalformedRequestError, match=re.escape(said)):
        await read_image(as_json(text), JSON)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"QUJD"',
        b" null",
        b"\n7",
        b"true",
        b"{}",
        b'{"images":["QUJD"]}',
        b'{"image":"","top_k":1}',
    ],
)
async def test_json_of_another_shape_is_an_invalid_parameter(body):
    """It is JSON, and so not malformed."""
    with pytest.raises(InvalidParameterError):
        await read_image(body, JSON)


async def test_of_a_member_given_twice_the_last_counts():
    """As most readers of JSON do; RFC 8259, section 4, leaves it open."""
    assert await read_image(b'{"image":"*","image":"QUJD"}', JSON) == b"ABC"


async def test_as_many_images_as_are_accepted_are_read():
    """And one more is refused, with both numbers."""
    body = json.dumps({"images": ["QUJD"] * 3}).encode()

    assert await read_images(body, JSON, max_items=3) == [b"ABC"] * 3
    with pytest.raises(TooManyImagesError, match="has 3 images; at most 2"):
        await read_images(body, JSON, max_items=2)


async def test_a_large_image_is_decoded_in_slices():
    """One call holds the lock of the interpreter for 6 ms a megabyte."""
    sent, calls = bytes(BASE64_SLICE * 3), []

    def watch(_, event, called):
        if event == "c_call" and called is binascii.a2b_base64:
            calls.append(called)

    threading.setprofile(watch)
    sys.setprofile(watch)
    received = await read_image(as_json(base64.b64encode(sent).decode()), JSON)
    sys.setprofile(None)
    threading.setprofile(None)

    assert received == sent
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("read", "start"),
    [
        (read_image, b'{"image":['),
        (partial(read_images, max_items=8), b'{"images":['),
    ],
)
async def test_countless_members_are_refused_before_they_are_parsed(read, start):
    """Each costs far more memory than its two bytes; the parser would find first that
    this is no JSON."""
    with pytest.raises(TooManyImagesError, match="many more members"):
        await read(start + b"1," * 100, JSON)
