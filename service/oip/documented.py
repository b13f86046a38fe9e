"""inference → **OpenAPI**: its bodies and its errors, which are those of `/v2`."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp

from service import examples
from service.images import JSON, RAW
from service.oip import shapes
from service.openapi import ALWAYS, RawRoute, Responses, retry_after
from service.problems import KINDS, Problem, oip_error

TAG = "open inference protocol"

INFERENCE_PROBLEMS = (
    "malformed_request",
    "image_empty",
    "model_not_found",
    "body_timeout",
    "body_too_large",
    "too_many_images",
    "image_too_many_pixels",
    "media_type_unsupported",
    "image_format_unsupported",
    "image_undecodable",
    "engine_failed",
    "overloaded",
    "draining",
    "not_ready",
    "deadline_exceeded",
)


def refusals(*codes: str) -> Responses:
    """The error responses of a route, by status, with an example for each code."""
    responses: Responses = {}
    for code in (*codes, *ALWAYS):
        kind = KINDS[code]
        response = responses.setdefault(
            int(kind.status),
            {
                "description": kind.status.phrase,
                "content": {
                    JSON: {
                        "schema": {"$ref": "#/components/schemas/OipError"},
                        "examples": {},
                    }
                },
                **retry_after(kind.status),
            },
        )
        problem = Problem(code, examples.DETAILS[code])
        response["content"][JSON]["examples"][code] = {
            "summary": kind.title,
            "value": oip_error(problem, examples.REQUEST_ID),
        }
    return responses


def inference_body() -> dict[str, Any]:
    """The request body of `infer`."""
    return {
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
                        "with the header Inference-Header-Content-Length; or one image "
                        "file, if that says 0.",
                    }
                },
            },
        }
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
            "content": {JSON: {"example": examples.INFERRED}, RAW: {}},
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
            openapi_extra=inference_body(),
        )
        for path, companion in companions.items()
    ]
