"""body → **image bytes**: raw, a form, or JSON with base64; one image or many.

In a batch a broken item is an error in its own place and disturbs no other.
"""

import asyncio
import binascii
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.types import Scope

from service.errors import (
    EmptyBodyError,
    InvalidParameterError,
    MalformedRequestError,
    MediaTypeError,
    ServiceError,
    TooManyImagesError,
    shown,
)
from service.multipart import Part, read_parts
from service.shapes import BatchBody, ImageBody

RAW = "application/octet-stream"
FORM = "multipart/form-data"
JSON = "application/json"

ACCEPT_ONE = f"image/*, {RAW}, {FORM}, {JSON}"
ACCEPT_MANY = f"{FORM}, {JSON}"

# So much takes about as long to parse as a thread hop (60 µs); a form is only split.
JSON_IN_THREAD_BYTES = 24 * 1024
FORM_IN_THREAD_BYTES = 512 * 1024

# Characters that are decoded in one go, in about half a millisecond; a multiple of 4.
BASE64_SLICE = 128 * 1024

# What base64 has no place for; `=` is looked at by the decoder.
STRAY = re.compile(r"[^A-Za-z0-9+/=]")

# A form for one image has one part; a few more are read to name what is wrong.
MAX_PARTS_READ = 8

# How a JSON text can begin (RFC 8259, section 3); no image begins so.
JSON_START = re.compile(rb'[ \t\r\n]*["{\[tfn0-9-]')

Document = TypeVar("Document", bound=BaseModel)
Result = TypeVar("Result")


def content_type_of(scope: Scope, *, accept: str) -> str:
    """The `Content-Type`; without one the body is taken as raw (RFC 9110, 8.3).

    Raises:
        MediaTypeError: it is not in `accept`, or the body is compressed.
    """
    content_type = RAW
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"content-encoding":
            encoding = value.decode("latin-1").strip()
            if encoding.lower() not in ("", "identity"):
                raise MediaTypeError(
                    f"the body is encoded as {shown(encoding)}; send it as it is",
                    accept=accept,
                )
    media_type = media_type_of(content_type)
    if media_type in (FORM, JSON) or (accept is ACCEPT_ONE and is_raw(media_type)):
        return content_type
    raise _media_type_error(media_type, accept)


def media_type_of(content_type: str) -> str:
    """`Image/PNG; q=1` → `image/png`."""
    return content_type.partition(";")[0].strip().lower()


def is_raw(media_type: str) -> bool:
    """Whether the body itself is the image."""
    return media_type.startswith("image/") or media_type == RAW


async def read_image(body: bytes, content_type: str) -> bytes:
    """The one image of a request whose `content_type_of` is accepted.

    Raises:
        MalformedRequestError, InvalidParameterError, EmptyBodyError, TooManyImagesError
    """
    media_type = media_type_of(content_type)
    if is_raw(media_type):
        image = body
    elif media_type == FORM:
        image = await off_loop(
            body, lambda body: _one_in_form(body, content_type), FORM_IN_THREAD_BYTES
        )
    else:
        image = await off_loop(body, _one_in_json, JSON_IN_THREAD_BYTES)
    if not image:
        raise EmptyBodyError("the image has no bytes")
    return image


async def read_images(
    body: bytes, content_type: str, *, max_items: int
) -> list[bytes | ServiceError]:
    """The images of a batch request, each its bytes or what is wrong with it.

    Raises:
        MalformedRequestError, InvalidParameterError, EmptyBodyError, TooManyImagesError
    """
    media_type = media_type_of(content_type)
    images: list[bytes | ServiceError]
    if media_type == FORM:
        images = await off_loop(
            body,
            lambda body: _many_in_form(body, content_type, max_items),
            FORM_IN_THREAD_BYTES,
        )
    else:
        images = await off_loop(
            body, lambda body: _many_in_json(body, max_items), JSON_IN_THREAD_BYTES
        )
    if not images:
        raise EmptyBodyError("the batch has no images")
    return [
        EmptyBodyError("the image has no bytes") if image == b"" else image
        for image in images
    ]


def _one_in_form(body: bytes, content_type: str) -> bytes:
    parts = read_parts(body, content_type, max_parts=MAX_PARTS_READ)
    files = [_file(part, "file") for part in parts]
    if not files:
        raise EmptyBodyError("the form has no part; send the image as field 'file'")
    if len(files) > 1:
        raise TooManyImagesError(
            f"the form has {len(files)} files; one is accepted here, more by "
            "/classify/batch"
        )
    return files[0].data


def _many_in_form(
    body: bytes, content_type: str, max_items: int
) -> list[bytes | ServiceError]:
    parts = read_parts(body, content_type, max_parts=max_items)
    return [_file(part, "files").data for part in parts]


def _file(part: Part, name: str) -> Part:
    if part.name != name:
        raise InvalidParameterError(
            f"the form has a field {shown(part.name)}; only {name!r} is allowed "
            "(parameters such as top_k belong into the query)"
        )
    return part


def _one_in_json(body: bytes) -> bytes:
    return decode_base64(_document(body, ImageBody, max_items=1).image, "image")


def _many_in_json(body: bytes, max_items: int) -> list[bytes | ServiceError]:
    texts = _document(body, BatchBody, max_items=max_items).images
    if len(texts) > max_items:
        raise TooManyImagesError(
            f"the batch has {len(texts)} images; at most {max_items} are accepted"
        )
    return [_base64_or_error(text, f"images[{i}]") for i, text in enumerate(texts)]


def _document(body: bytes, shape: type[Document], *, max_items: int) -> Document:
    if not JSON_START.match(body):
        raise MalformedRequestError(
            "the body is not JSON; send an image as it is under another Content-Type"
        )
    # Base64 has no commas: many of them mean many small values, of which each would
    # cost far more memory than its two bytes in the body.
    if body.count(b",") > 2 * max_items + 8:
        raise TooManyImagesError(
            f"the JSON has many more members than the {max_items} accepted here"
        )
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise _explained(error) from error


def _explained(error: ValidationError) -> ServiceError:
    where, fault = first_fault(error)
    if where is None:
        return MalformedRequestError(f"the body is not JSON: {fault}")
    return InvalidParameterError(f"{shown(where or 'the body')}: {fault}")


def first_fault(error: ValidationError) -> tuple[str | None, str]:
    """Where a body is not of its shape, and why; nowhere, that is None, if not JSON."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return None, first["msg"]
    return ".".join(str(step) for step in first["loc"]), first["msg"].lower()


def _base64_or_error(text: object, where: str) -> bytes | ServiceError:
    try:
        return decode_base64(text, where)
    except MalformedRequestError as error:
        return error


def decode_base64(text: object, where: str) -> bytes:
    """Decode strictly: a stray character is an error, not skipped.

    Raises:
        MalformedRequestError: naming `where` it stands.
    """
    if not isinstance(text, str):
        raise MalformedRequestError(f"{where} is not a string of base64")
    if text[:5].lower() == "data:":
        raise MalformedRequestError(
            f"{where} is a data: URL; send only the base64 after its comma"
        )
    try:
        return b"".join(_base64_slices(text))
    except ValueError as error:
        raise MalformedRequestError(f"{where} is not base64: {error}") from error


def _base64_slices(text: str) -> Iterator[bytes]:
    """Bytes of a text, a slice at a time: one call decodes under the interpreter's
    lock, and for a large image all other threads would wait for it.
    """
    for start in range(0, len(text), BASE64_SLICE):
        piece = text[start : start + BASE64_SLICE]
        try:
            decoded = binascii.a2b_base64(piece, strict_mode=True)
        except ValueError as error:  # binascii.Error, or text outside ASCII
            raise binascii.Error(_base64_fault(text, start) or error) from error
        if piece.endswith("=") and start + BASE64_SLICE < len(text):
            raise binascii.Error("Excess data after padding")
        yield decoded


def _base64_fault(text: str, start: int) -> str | None:
    """What is wrong in the slice from `start` on; None: its padding.

    The decoder names neither a character nor its place, which here counts from 0.
    """
    stray = STRAY.search(text, start, start + BASE64_SLICE)
    if stray is None:
        odd = len(text) % 4 != 0
        return f"{len(text)} characters, not a multiple of 4" if odd else None
    told = f"{shown(stray[0])} at position {stray.start()}"
    if stray[0] in "-_":
        return f"{told}; send the alphabet with + and /, not the URL-safe one"
    if stray[0].isspace():
        return f"{told}; send it without line breaks and spaces"
    return told


async def off_loop(
    body: bytes, parse: Callable[[bytes], Result], in_thread_from: int
) -> Result:
    """Parse here when that is quick, else in a thread. There JSON still keeps the loop
    waiting while it is parsed in one piece, about 2 ms a megabyte.
    """
    if len(body) < in_thread_from:
        return parse(body)
    return await asyncio.to_thread(parse, body)


def _media_type_error(media_type: str, accept: str) -> MediaTypeError:
    hint = (
        " (curl --data-binary sends this unless told -H 'Content-Type: image/jpeg')"
        if media_type == "application/x-www-form-urlencoded"
        else ""
    )
    return MediaTypeError(
        f"the Content-Type is {shown(media_type)}{hint}; taken are {accept}",
        accept=accept,
    )
