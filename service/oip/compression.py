"""compressed body → **body**, a piece at a time, so that no bomb is unpacked.

Tensors compress where images do not: tritonclient offers both encodings.
"""

import asyncio
import zlib
from collections.abc import Iterator

from starlette.types import Scope

from service.bodies import Bodies, check_size
from service.errors import MalformedRequestError, MediaTypeError, shown
from service.exchange import exchange_of

# Content-Encoding → what zlib calls its format; "deflate" is zlib's (RFC 9110, 8.4.1.2)
FORMATS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
PIECE_BYTES = 2**20
READ_BYTES = 2**18  # zlib copies what it has not used of what it was given


def encoding_of(scope: Scope) -> str | None:
    """The `Content-Encoding` of a body, if it has one.

    Raises:
        MediaTypeError: it is not known here.
    """
    for name, value in scope["headers"]:
        if name == b"content-encoding":
            encoding = str(value, "latin-1").strip().lower()
            if encoding in FORMATS:
                return encoding
            if encoding not in ("", "identity"):
                raise MediaTypeError(
                    f"the body is encoded as {shown(encoding)}; taken are "
                    f"{', '.join(FORMATS)}",
                    accept="application/json, application/octet-stream",
                    encodings=", ".join((*FORMATS, "identity")),
                )
    return None


async def decompress(
    body: bytes, encoding: str, scope: Scope, bodies: Bodies, *, limit: int
) -> bytes:
    """The body that was meant; it is counted as it grows, beside what was sent.

    Raises:
        BodyTooLargeError: it has more than `limit` bytes.
        OverloadedError: all bodies together are at their bound.
        MalformedRequestError: it is damaged, cut off, or followed by something.
    """
    pieces, whole = decompressed(body, encoding), bytearray()
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        check_size(len(whole) + len(piece), limit)
        bodies.hold(len(piece), exchange_of(scope), limit=limit + len(body))
        whole += piece
    return bytes(whole)


def decompressed(body: bytes, encoding: str) -> Iterator[bytes]:
    """Pieces of at most `PIECE_BYTES`, each unpacked when it is asked for."""
    inflater = zlib.decompressobj(FORMATS[encoding])
    view = memoryview(body)
    try:
        for start in range(0, len(body), READ_BYTES):
            unused: bytes | memoryview = view[start : start + READ_BYTES]
            # after its end zlib gives back what follows, again and again
            while unused and not inflater.eof:
                yield inflater.decompress(unused, PIECE_BYTES)
                unused = inflater.unconsumed_tail
            if inflater.eof:
                break
    except zlib.error as error:
        raise MalformedRequestError(f"the body is not {encoding}: {error}") from error
    read = start + READ_BYTES if body else 0
    if not inflater.eof or inflater.unused_data or read < len(body):
        raise MalformedRequestError(
            f"the body is not one whole piece of {encoding}: it is cut off, or goes on"
        )
