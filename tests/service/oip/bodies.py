"""Bodies of inference requests, written as the protocol's pages show them."""

import base64
import json
import struct
from collections.abc import Sequence
from typing import Any

import httpx

INFER = "/v2/models/colors/infer"
LENGTH = "Inference-Header-Content-Length"


def input_of(**members: Any) -> dict[str, Any]:
    """One input, of one image unless told otherwise."""
    return {"name": "image", "datatype": "BYTES", "shape": [1], **members}


def in_json(*images: bytes, **members: Any) -> dict[str, Any]:
    """A request with images in base64."""
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [input_of(shape=[len(images)], data=data)], **members}


def elements(*images: bytes) -> bytes:
    """A binary BYTES tensor."""
    return b"".join(struct.pack("<I", len(image)) + image for image in images)


def binary(tensor: bytes, *, size: int | None = None, **members: Any) -> dict[str, Any]:
    """What httpx needs to send one binary input."""
    size = len(tensor) if size is None else size
    described = input_of(parameters={"binary_data_size": size}, **members)
    text = json.dumps({"inputs": [described]}).encode()
    return {"content": text + tensor, "headers": {LENGTH: str(len(text))}}


def pixels(values: Sequence[Any], shape: Sequence[int]) -> dict[str, Any]:
    """A request with pixels in JSON."""
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(shape)}
    return {"inputs": [{**tensor, "data": values}]}


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and text of an error, which has the protocol's shape."""
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    return response.status_code, body["error"]
