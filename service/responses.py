"""body → **response**: a 200, with the headers that are its own."""

from starlette.types import Send

from service.contract import Timing
from service.exchange import Headers


async def send_json(send: Send, body: bytes, *, timing: Timing | None) -> None:
    """Write a 200 with JSON that is already serialized."""
    await send_answer(send, body, json_headers(body, timing))


async def send_answer(send: Send, body: bytes, headers: Headers) -> None:
    """Write a 200 whole."""
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def json_headers(body: bytes, timing: Timing | None) -> Headers:
    """The headers of an answer that are its own."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    if timing is not None:
        headers.append((b"server-timing", server_timing(timing)))
    return headers


def server_timing(timing: Timing) -> bytes:
    """The header `Server-Timing`, in milliseconds (W3C)."""
    return (
        b'decode;dur=%.3f, queue;dur=%.3f, batch;dur=%.3f;desc="%d", infer;dur=%.3f'
        % (
            timing.decode_ms,
            timing.queue_ms,
            timing.batch_ms,
            timing.batch_size,
            timing.infer_ms,
        )
    )
