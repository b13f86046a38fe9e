"""inference → **OpenAPI**: its bodies and its errors, which are those of `/v2`."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp

from service import examples
from service.headers import TIMED
from service.images import JSON, RAW
from service.oip import shapes
from service.oip.compression import FORMATS
from service.oip.request import LENGTH
from service.openapi import IMAGE_PROBLEMS, RawRoute, Responses, error_responses
from service.problems import oip_error

TAG = "open inference protocol"

# Parameters are part of the body here, and a wrong one makes it malformed.
INFERENCE_PROBLEMS = tuple(c for c in IMAGE_PROBLEMS if c != "invalid_parameter")


def refusals(*codes: str) -> Responses:
    """The error responses of a route, by status, with an example for each code."""
    return error_responses(
        codes, examples.OIP_DETAILS, oip_error, media_type=JSON, schema="OipError"
    )


def inference_request() -> dict[str, Any]:
    """The body of `infer`, and the headers that say how it is to be read."""
    return {
        "parameters": [
            {
                "name": LENGTH,
                "in": "header",
                "description": "Bytes of the JSON before binary tensors; 0: the body "
                "is one image file. Unset: all of it is JSON.",
                "schema": {"type": "integer", "minimum": 0},
            },
            {
                "name": "Content-Encoding",
                "in": "header",
                "description": "How the body is compressed.",
                "schema": {"type": "string", "enum": [*FORMATS, "identity"]},
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {"$ref": "#/components/schemas/InferenceRequest"},
                    "example": examples.INFERENCE,
                },
                RAW: {
                    "schema": {
                        "type": "string",
                        "format": "binary",
                        "description": "The same JSON and binary tensors behind it, "
                        f"with the header {LENGTH}; or one image "
                        "file, if that says 0.",
                    }
                },
            },
        },
    }


async def infer(name: str) -> shapes.InferenceResponse:
    """One input: `image`, encoded files, or `pixels`, preprocessed ones.

    Outputs are `scores`, a column a label, and `logits`. In JSON images are base64.
    The first image that fails fails the request.
    """
    raise NotImplementedError  # never called: see RawRoute


async def infer_version(name: str, version: str) -> shapes.InferenceResponse:
    """As without the version, which is the newest then."""
    raise NotImplementedError  # never called: see RawRoute


def infer_routes(endpoint: ASGIApp) -> list[RawRoute]:
    """Inference, with and without the version in the path, documented."""
    answer: Responses = {
        200: {
            "description": "Inferred.",
            "headers": {
                **TIMED,
                LENGTH: {
                    "description": "Bytes of the JSON, where outputs are binary.",
                    "schema": {"type": "integer", "minimum": 1},
                },
            },
            "content": {
                JSON: {"example": examples.INFERRED},
                RAW: {
                    "schema": {
                        "type": "string",
                        "format": "binary",
                        "description": "The same JSON, and binary outputs behind it.",
                    }
                },
            },
        }
    }
    companions: Mapping[str, Callable[..., Any]] = {
        "/v2/models/{name}/infer": infer,
        "/v2/models/{name}/versions/{version}/infer": infer_version,
    }
    return [
        RawRoute(
            path,
            endpoint,
            companion,
            operation_id=f"v2_{companion.__name__}",
            summary="Infer",
            tags=[TAG],
            responses={**answer, **refusals(*INFERENCE_PROBLEMS)},
            openapi_extra=inference_request(),
        )
        for path, companion in companions.items()
    ]
