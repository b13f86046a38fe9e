"""images → **request bodies** in the four dialects of the service."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

from bench.client import build_request

BOUNDARY = "linnaeus-bench-5f1d0a"


@dataclass(frozen=True, slots=True)
class Body:
    """One request body; `images` is how many answers it asks for."""

    path: str
    content_type: str
    content: bytes
    images: int = 1

    @property
    def request(self) -> bytes:
        """The whole request as it goes over the wire."""
        return build_request(
            self.path, body=self.content, headers={"Content-Type": self.content_type}
        )


def raw(image: bytes, *, path: str = "/classify") -> Body:
    """The image itself: the fast path."""
    return Body(path, "application/octet-stream", image)


def multipart(image: bytes, *, path: str = "/classify", field: str = "file") -> Body:
    """A form with one file, as browsers and `curl -F` send it."""
    return Body(path, *_form([image], field=field))


def encoded(image: bytes, *, path: str = "/classify", field: str = "image") -> Body:
    """JSON with the image in base64."""
    content = json.dumps({field: base64.b64encode(image).decode("ascii")})
    return Body(path, "application/json", content.encode("ascii"))


def batch(images: Sequence[bytes], *, path: str = "/classify/batch") -> Body:
    """A form with many files."""
    content_type, content = _form(images, field="files")
    return Body(path, content_type, content, images=len(images))


def batches(images: Sequence[bytes], *, size: int) -> list[Body]:
    """Every image starts one batch of `size`, wrapping round: all batches differ."""
    doubled = [*images] * (1 + -(-size // len(images)))
    return [batch(doubled[at : at + size]) for at in range(len(images))]


def _form(images: Sequence[bytes], *, field: str) -> tuple[str, bytes]:
    parts = bytearray()
    for number, image in enumerate(images):
        parts += (
            f"--{BOUNDARY}\r\n"
            f'Content-Disposition: form-data; name="{field}"; filename="{number}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode("ascii")
        parts += image + b"\r\n"
    parts += f"--{BOUNDARY}--\r\n".encode("ascii")
    return f"multipart/form-data; boundary={BOUNDARY}", bytes(parts)


DIALECTS = {"raw": raw, "multipart": multipart, "json": encoded}
