"""The examples that OpenAPI shows: **real bytes and real answers**.

Tests send them to the real application, so that they stay what it really says.
"""

from typing import Any

REQUEST_ID = "5f3a9c1e7b2d4068"

# A 2x2 PNG, the least image that is worth pasting into a terminal.
PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR42mP8"
    "wMXFwMDAxMDAwMDAAAANQAEI4yAiRwAAAABJRU5ErkJggg=="
)

ANSWER: dict[str, Any] = {
    "id": "5f3a9c1e7b2d4068",
    "model": {"name": "colors", "version": 1},
    "task": "multiclass",
    "image": {"width": 2, "height": 2, "format": "PNG"},
    "predictions": [
        {"label": "red", "index": 0, "id": "red", "score": 0.9999988079071045},
        {"label": "green", "index": 1, "id": "green", "score": 5.40173857643822e-07},
        {"label": "blue", "index": 2, "id": "blue", "score": 5.40173857643822e-07},
    ],
    "warnings": ["the image is 2x2, smaller than the 8x8 that this model reads"],
}
BATCH: dict[str, Any] = {
    "results": [
        {
            "id": "5f3a9c1e7b2d4068/0",
            "model": {"name": "colors", "version": 1},
            "task": "multiclass",
            "image": {"width": 2, "height": 2, "format": "PNG"},
            "predictions": [
                {"label": "red", "index": 0, "id": "red", "score": 0.9999988079071045},
                {
                    "label": "green",
                    "index": 1,
                    "id": "green",
                    "score": 5.40173857643822e-07,
                },
                {
                    "label": "blue",
                    "index": 2,
                    "id": "blue",
                    "score": 5.40173857643822e-07,
                },
            ],
            "warnings": [
                "the image is 2x2, smaller than the 8x8 that this model reads"
            ],
        },
        {
            "error": {
                "type": "/docs#image_format_unsupported",
                "title": "This is not an image of a format we take",
                "status": 415,
                "detail": "not an image of an accepted format; accepted are JPEG, PNG, "
                "WEBP, GIF, BMP, TIFF, AVIF",
                "code": "image_format_unsupported",
                "request_id": "5f3a9c1e7b2d4068/1",
            }
        },
    ],
    "succeeded": 1,
    "failed": 1,
}

INFERENCE: dict[str, Any] = {
    "inputs": [
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": [PNG_BASE64]}
    ],
    "outputs": [{"name": "scores", "parameters": {"classification": 1}}],
}
INFERRED: dict[str, Any] = {
    "model_name": "colors",
    "model_version": "1",
    "outputs": [
        {
            "name": "scores",
            "datatype": "BYTES",
            "shape": [1, 1],
            "data": ["0.9999988079071045:0:red"],
        }
    ],
}

DETAILS = {
    "malformed_request": "the form is cut off: its closing boundary is missing",
    "image_empty": "the image has no bytes",
    "route_not_found": "there is nothing at '/clasify'; see /docs",
    "model_not_found": "model 'dog' is not loaded; loaded are imagenet",
    "method_not_allowed": "GET is not taken at '/classify'; taken: POST",
    "body_timeout": "the body did not arrive within 30 s",
    "body_too_large": "the body has 30000000 bytes or more; at most 20971520 are "
    "accepted here",
    "too_many_images": "the batch has 65 images; at most 64 are accepted",
    "image_too_many_pixels": "the image declares 60000x60000 pixels; at most 50000000 "
    "pixels are accepted",
    "media_type_unsupported": "the Content-Type is 'text/plain'; taken are image/*, "
    "application/octet-stream, multipart/form-data, application/json",
    "image_format_unsupported": "not an image of an accepted format; accepted are "
    "JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF",
    "image_undecodable": "the image cannot be decoded: image file is truncated",
    "invalid_parameter": "top_k is 2000; for this model 1 to 1000 are allowed",
    "internal_error": "The cause is in the service's log, under this request_id.",
    "engine_failed": "The cause is in the service's log, under this request_id.",
    "overloaded": "256 images wait for imagenet, and 1 more came; at most 256 may wait",
    "draining": "the service is stopping; another process may answer",
    "not_ready": "no lane is alive",
    "deadline_exceeded": "the answer did not come before the deadline of this request",
}

# What infer of `/v2` says of the same: a body has neither form nor type, and an image
# is one of a tensor.
OIP_DETAILS = {
    "malformed_request": "the inputs are 'a, b'; one is needed: image (BYTES, encoded "
    "files) or pixels (UINT8, preprocessed)",
    "media_type_unsupported": "the body is encoded as 'br'; taken are gzip, deflate",
    **{
        code: f"image[0]: {detail}"
        for code, detail in DETAILS.items()
        if code.startswith("image_")
    },
    "image_empty": "image[0]: the image is empty (0 bytes)",
}
