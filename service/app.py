"""settings, engine → **application**: the only place that builds what answers HTTP."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.contract import Engine
from service.errors import (
    MalformedRequestError,
    MethodNotAllowedError,
    RouteNotFoundError,
    shown,
)
from service.exchange import RequestLog, RequestMiddleware
from service.logs import build_log
from service.metrics import Metrics
from service.oip.documented import infer_routes
from service.oip.shapes import InferenceRequest, OipError
from service.openapi import RawRoute, build_document, classify_routes
from service.routes.batch import ClassifyMany
from service.routes.classify import ClassifyOne
from service.routes.health import build_health_router
from service.routes.infer import Infer
from service.routes.models import build_models_router
from service.routes.oip import build_oip_router
from service.routes.pages import build_pages_router
from service.serving import Serving
from service.settings import Settings
from service.shapes import BatchBody, ImageBody, ProblemDetails

DESCRIPTION = """
Send a picture, get its label: binary, multi-class, multi-label and fine-grained image
classification behind one route.

    curl -H 'Content-Type: image/jpeg' --data-binary @cat.jpg localhost:8000/classify

Every error is `application/problem+json` (RFC 9457) with a stable `code`. Below `/v2`,
where clients of the Open Inference Protocol ask, it is `{"error": "…"}`.
"""

NOT_FOUND, NOT_ALLOWED = 404, 405

# Shapes that routes name which FastAPI does not read.
REFERRED = (ProblemDetails, ImageBody, BatchBody, OipError, InferenceRequest)


class Application(FastAPI):
    """FastAPI, whose dozen layers the two routes of `/classify` go around.

    Those layers (telemetry, body limits, exit stacks, routing) cost 25 µs a request and
    serve the other routes only. These two are registered with FastAPI as well, which
    documents them and refuses other methods.
    """

    serving: Serving
    request_log: RequestLog
    direct_routes: Mapping[str, RawRoute]
    direct_app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["method"] == "POST":
            route = self.direct_routes.get(scope["path"])
            if route is not None:
                scope["route"] = route
                await self.direct_app(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, object]:
        """Built at the first call, then kept."""
        if self.openapi_schema is None:
            self.openapi_schema = build_document(self, REFERRED)
        return self.openapi_schema


async def to_route(scope: Scope, receive: Receive, send: Send) -> None:
    """Call the route that `Application` has found."""
    await scope["route"].app(scope, receive, send)


def create_app(
    settings: Settings,
    engine: Engine,
    *,
    log: FilteringBoundLogger | None = None,
) -> Application:
    """The application around an engine, which `service/server.py` starts and closes."""
    log = log or build_log(settings)
    metrics = Metrics()
    request_log = RequestLog(log, metrics)
    serving = Serving(settings, engine, metrics)

    app = Application(
        title="Linnaeus",
        version=project_version(),
        summary="Image classification",
        description=DESCRIPTION,
        redirect_slashes=False,  # a redirected POST would have to send its image again
        openapi_url=None,  # served by routes/pages.py, as are the docs
        docs_url=None,
        redoc_url=None,
    )
    app.serving, app.request_log = serving, request_log
    raw_routes = classify_routes(
        ClassifyOne(serving), ClassifyMany(serving, request_log)
    )
    app.direct_routes = {route.path: route for route in raw_routes}
    app.direct_app = RequestMiddleware(to_route, request_log=request_log, state=serving)
    app.router.routes.extend(raw_routes)
    inference_routes = infer_routes(Infer(serving))
    for route in (*raw_routes, *inference_routes):
        metrics.expect(route.path)
    app.include_router(build_models_router(serving))
    app.include_router(build_health_router(serving))
    app.router.routes.extend(inference_routes)
    app.include_router(build_oip_router(serving, app.version))
    app.include_router(build_pages_router(app))
    app.add_exception_handler(HTTPException, refuse_route)
    app.add_middleware(RequestMiddleware, request_log=request_log, state=serving)
    return app


def project_version() -> str:
    """The installed version; a checkout that is not installed has none."""
    try:
        return version("linnaeus")
    except PackageNotFoundError:
        return "unreleased"


async def refuse_route(request: Request, error: Exception) -> Response:
    """What the router found wrong, raised as this service's own error."""
    if not isinstance(error, HTTPException):
        raise error
    path = shown(request.url.path)
    if error.status_code == NOT_FOUND:
        raise RouteNotFoundError(f"there is nothing at {path}; see /docs") from error
    if error.status_code == NOT_ALLOWED:
        allow = (error.headers or {}).get("Allow", "")
        if allow == "GET":
            allow = "GET, HEAD"
        raise MethodNotAllowedError(
            f"{request.method} is not taken at {path}; taken: {allow}", allow=allow
        ) from error
    raise MalformedRequestError(str(error.detail)) from error
