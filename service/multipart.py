"""body → **parts**: `multipart/form-data`, split in memory (RFC 7578, RFC 2046).

The body is already whole and bounded, so one search for the boundary is enough: each
file is copied once. A streaming parser walks hostile bytes one by one in Python, and
Starlette's form sends files over 1 MiB through a temporary file on disk.
"""

from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from service.errors import MalformedRequestError, TooManyImagesError

CRLF = b"\r\n"
MAX_BOUNDARY = 70  # RFC 2046, 5.1.1
MAX_HEADERS = 8192  # bytes a part; browsers send about 150
# Semicolons of a header, also those in the name of a file. The parser takes 2 µs for
# each, on the event loop, where half a megabyte of them took a second.
MAX_OPTIONS = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form. A file's own name is not kept: nothing here needs it."""

    name: str
    data: bytes


def read_parts(body: bytes, content_type: str, *, max_parts: int) -> list[Part]:
    """Split a form into its parts, in order.

    Raises:
        MalformedRequestError: no boundary, broken framing, cut off, or many options.
        TooManyImagesError: more than `max_parts` parts.
    """
    delimiter = CRLF + b"--" + _boundary(content_type)
    # The first delimiter may stand at the very start, without a line before it.
    _, *sections = (CRLF + body).split(delimiter, max_parts + 1)
    if not sections:
        raise MalformedRequestError("the form does not contain its own boundary")
    *complete, last = sections
    if len(complete) == max_parts and not last.startswith(b"--"):
        raise TooManyImagesError(f"the form has more than {max_parts} parts")
    if not last.startswith(b"--"):
        raise MalformedRequestError(
            "the form is cut off: its closing boundary is missing"
        )
    if any(section.startswith(b"--") for section in complete):
        raise MalformedRequestError("the form goes on after its closing boundary")
    return [_part(section) for section in complete]


def _boundary(content_type: str) -> bytes:
    _, options = _options(content_type.encode("latin-1"))
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY:
        raise MalformedRequestError(
            f"the boundary of the form has {len(boundary)} characters; "
            f"1 to {MAX_BOUNDARY} are allowed"
        )
    return boundary


def _part(section: bytes) -> Part:
    """`padding CRLF headers CRLF CRLF data` → Part."""
    end = section.find(CRLF + CRLF, 0, MAX_HEADERS)
    if end < 0:
        raise MalformedRequestError(
            f"a part of the form has no end of its headers within {MAX_HEADERS} bytes"
        )
    _, *lines = section[:end].split(CRLF)
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in lines)
    }
    kind, options = _options(headers.get(b"content-disposition", b""))
    if kind != b"form-data" or b"name" not in options:
        raise MalformedRequestError(
            "a part of the form has no Content-Disposition: form-data with a name"
        )
    return Part(
        name=options[b"name"].decode(errors="replace"),
        data=section[end + 2 * len(CRLF) :],
    )


def _options(header: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """`form-data; name="file"` → (form-data, {name: file})."""
    if header.count(b";") > MAX_OPTIONS:
        raise MalformedRequestError(
            f"a header of the form has more than {MAX_OPTIONS} semicolons"
        )
    return parse_options_header(header)
