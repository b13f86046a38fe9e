"""routes → **OpenAPI**: every body, every parameter and every error, with examples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from pydantic.json_schema import (
    GenerateJsonSchema,
    JsonSchemaValue,
    SkipJsonSchema,
    models_json_schema,
)
from pydantic_core import core_schema
from starlette.types import ASGIApp

from service import examples, shapes
from service.headers import TIMED, describe_headers
from service.images import FORM, JSON, RAW
from service.problems import MEDIA_TYPE, PROBLEM_TYPES, Problem

# What any route may answer, whatever is asked of it.
ALWAYS = ("internal_error",)

# What any route that takes images may answer besides.
IMAGE_PROBLEMS = (
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
    "invalid_parameter",
    "engine_failed",
    "overloaded",
    "draining",
    "not_ready",
    "deadline_exceeded",
)

Responses = dict[int | str, dict[str, Any]]


class RawRoute(APIRoute):
    """A plain ASGI endpoint with the documentation of a typed companion.

    FastAPI reads the companion's signature for OpenAPI; the request goes to `endpoint`
    without being parsed or validated by FastAPI.
    """

    def __init__(
        self, path: str, endpoint: ASGIApp, companion: Callable[..., Any], **facts: Any
    ) -> None:
        super().__init__(path, companion, methods=["POST"], **facts)
        self.app = endpoint


def problems(*codes: str, **details: str) -> Responses:
    """The error responses of a route, by status, with an example for each code.

    `details` are those that it tells in words of its own.
    """
    return error_responses(
        codes, details, Problem.members, media_type=MEDIA_TYPE, schema="ProblemDetails"
    )


def error_responses(
    codes: Sequence[str],
    details: Mapping[str, str],
    members: Callable[[Problem, str], dict[str, object]],
    *,
    media_type: str,
    schema: str,
) -> Responses:
    """Those of `codes` and `ALWAYS`; `members` makes a problem the JSON of `schema`."""
    responses: Responses = {}
    for code in (*codes, *ALWAYS):
        problem_type = PROBLEM_TYPES[code]
        response = responses.setdefault(
            int(problem_type.status),
            {
                "description": problem_type.status.phrase,
                "content": {
                    media_type: {
                        "schema": {"$ref": f"#/components/schemas/{schema}"},
                        "examples": {},
                    }
                },
            },
        )
        problem = Problem(code, details.get(code, examples.DETAILS[code]))
        response["content"][media_type]["examples"][code] = {
            "summary": problem_type.title,
            "value": members(problem, examples.REQUEST_ID),
        }
    return responses


def answered(shape_example: Mapping[str, Any]) -> Responses:
    """The 200 of the two classify routes."""
    return {
        200: {
            "description": "Classified.",
            "headers": TIMED,
            "content": {JSON: {"example": shape_example}},
        }
    }


def one_image_body() -> dict[str, Any]:
    """The request body of `/classify`."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {"type": "object", "required": ["file"], "additionalProperties": False}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "image/*": binary,
                RAW: binary,
                FORM: {
                    "schema": {
                        **form,
                        "properties": {"file": {"type": "string", "format": "binary"}},
                    }
                },
                JSON: {
                    "schema": {"$ref": "#/components/schemas/ImageBody"},
                    "example": {"image": examples.PNG_BASE64},
                },
            },
        }
    }


def many_images_body() -> dict[str, Any]:
    """The request body of `/classify/batch`."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                FORM: {
                    "schema": {
                        "type": "object",
                        "required": ["files"],
                        "additionalProperties": False,
                        "properties": {"files": {**files, "minItems": 1}},
                    }
                },
                JSON: {
                    "schema": {"$ref": "#/components/schemas/BatchBody"},
                    "example": {"images": [examples.PNG_BASE64, "bm90IGFuIGltYWdl"]},
                },
            },
        }
    }


Unset = SkipJsonSchema[None]  # a query has no null: `?top_k=null` is a text
ModelQuery = Annotated[
    str | Unset, Query(description="Name of a loaded model. Unset: the default one.")
]
VersionQuery = Annotated[
    shapes.LongVersion | Unset, Query(description="Version. Unset: the newest loaded.")
]
UNSET_TOP_K = "the model's own number, or (multilabel) all over their thresholds"
TopKQuery = Annotated[
    Annotated[int, Field(ge=1)] | Unset,
    Query(description=f"How many predictions. Unset: {UNSET_TOP_K}."),
]
ThresholdQuery = Annotated[
    shapes.Score | Unset,
    Query(
        description="Instead of the model's thresholds: the score from which a label "
        "counts (binary, multilabel) or under which the model abstains (multiclass, "
        "fine-grained).",
    ),
]
ExplainQuery = Annotated[
    bool,
    Query(
        description="Also say where in the image the first prediction was seen. Only "
        "for models with `explains`."
    ),
]


async def classify_companion(
    model: ModelQuery = None,
    version: VersionQuery = None,
    top_k: TopKQuery = None,
    threshold: ThresholdQuery = None,
    explain: ExplainQuery = False,
) -> shapes.Answer:
    """Send the image as the body: that is the fastest way, and the simplest.

    A form with one field `file`, or JSON with base64, work as well.
    """
    raise NotImplementedError  # never called: see RawRoute


async def batch_companion(
    model: ModelQuery = None,
    version: VersionQuery = None,
    top_k: TopKQuery = None,
    threshold: ThresholdQuery = None,
    explain: ExplainQuery = False,
) -> shapes.BatchAnswer:
    """Each image is answered in its place; a bad one has an error and disturbs nobody.

    When all that can be read meet the same 503 or 504, that is the status of the
    response.
    """
    raise NotImplementedError  # never called: see RawRoute


def classify_routes(one: ASGIApp, many: ASGIApp) -> list[RawRoute]:
    """`/classify` and `/classify/batch`, documented."""
    return [
        RawRoute(
            "/classify",
            one,
            classify_companion,
            operation_id="classify",
            summary="Classify an image",
            tags=["classify"],
            responses={**answered(examples.ANSWER), **problems(*IMAGE_PROBLEMS)},
            openapi_extra=one_image_body(),
        ),
        RawRoute(
            "/classify/batch",
            many,
            batch_companion,
            operation_id="classify_batch",
            summary="Classify many images",
            tags=["classify"],
            responses={**answered(examples.BATCH), **problems(*IMAGE_PROBLEMS)},
            openapi_extra=many_images_body(),
        ),
    ]


class WithoutDefaults(GenerateJsonSchema):
    """Of a body: clients would be made to send what has a default (openapi-typescript).

    Its descriptions say what holds where it is not set.
    """

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """That of the value alone."""
        return self.generate_inner(schema["schema"])


def build_document(app: FastAPI, referred: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """The whole OpenAPI document, with the shapes that only `$ref` names."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _leave_out_validation(document["paths"], schemas)
    describe_headers(document["paths"])
    _, told = models_json_schema(
        [(shape, "validation") for shape in referred],
        ref_template="#/components/schemas/{model}",
        schema_generator=WithoutDefaults,
    )
    schemas |= told["$defs"]
    # all codes in one place, also those that belong to no route; /docs shows them
    document["x-problems"] = {
        code: {
            "status": int(problem_type.status),
            "title": problem_type.title,
            "detail": examples.DETAILS[code],
        }
        for code, problem_type in PROBLEM_TYPES.items()
    }
    return document


def _leave_out_validation(paths: Mapping[str, Any], schemas: dict[str, Any]) -> None:
    """What FastAPI says of its own of a parameter; here all errors are problems."""
    for methods in paths.values():
        for operation in methods.values():
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
