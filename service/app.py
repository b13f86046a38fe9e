"""settings → **application**: the composition root, the only place that builds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from structlog.typing import FilteringBoundLogger

from classifier.errors import ClassifierError
from service.contract import Engine
from service.errors import (
    InvalidParameterError,
    MalformedRequestError,
    MethodNotAllowedError,
    RouteNotFoundError,
    ServiceError,
)
from service.exchange import Envelope, exchange_of
from service.logs import build_log
from service.metrics import Metrics
from service.openapi import build_document, classify_routes
from service.problems import problem_of, response_of
from service.routes.batch import ClassifyMany
from service.routes.classify import ClassifyOne
from service.routes.health import build_health_router
from service.routes.models import build_models_router
from service.routes.pages import build_pages_router
from service.serving import Serving
from service.settings import Settings

DESCRIPTION = """
Send a picture, get its label: binary, multi-class, multi-label and fine-grained image
classification behind one route.

    curl -H 'Content-Type: image/jpeg' --data-binary @cat.jpg localhost:8000/classify

Every error is `application/problem+json` (RFC 9457) with a stable `code`.
"""

NOT_FOUND, NOT_ALLOWED, SERVER_ERROR = 404, 405, 500


class Application(FastAPI):
    """FastAPI with this service's own OpenAPI document."""

    serving: Serving

    def openapi(self) -> dict[str, object]:
        """Built at the first call, then kept."""
        if self.openapi_schema is None:
            self.openapi_schema = build_document(self)
        return self.openapi_schema


def create_app(
    settings: Settings,
    engine: Engine,
    *,
    log: FilteringBoundLogger | None = None,
) -> Application:
    """The application around an engine, which it starts and closes by its lifespan."""
    log = log or build_log(settings)
    metrics = Metrics()
    serving = Serving(settings, engine, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await serving.start()
        try:
            yield
        finally:
            await serving.stop()

    app = Application(
        title="Linnaeus",
        version=project_version(),
        summary="Image classification",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirected POST would have to send its image again
        openapi_url=None,  # served by routes/pages.py, as are the docs
        docs_url=None,
        redoc_url=None,
    )
    app.serving = serving
    app.router.routes.extend(
        classify_routes(ClassifyOne(serving), ClassifyMany(serving))
    )
    app.include_router(build_models_router(serving))
    app.include_router(build_health_router(serving))
    app.include_router(build_pages_router(app))
    for kind in (ServiceError, ClassifierError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer_error)
    app.add_middleware(Envelope, log=log, metrics=metrics)
    return app


def project_version() -> str:
    """The installed version; a checkout that is not installed has none."""
    try:
        return version("linnaeus")
    except PackageNotFoundError:
        return "0"


async def answer_error(request: Request, error: Exception) -> Response:
    """Any error that a route raised on purpose, as its problem."""
    match error:
        case HTTPException():
            error = _routing_error(request, error)
        case RequestValidationError():
            error = _validation_error(error)
    problem = problem_of(error)
    exchange = exchange_of(request.scope)
    exchange.code = problem.code
    if problem.status >= SERVER_ERROR:
        exchange.facts["error"] = f"{type(error).__name__}: {error}"
    return response_of(problem, request_id=exchange.request_id)


def _routing_error(request: Request, error: HTTPException) -> ServiceError:
    path = repr(request.url.path[:80])
    if error.status_code == NOT_FOUND:
        return RouteNotFoundError(f"there is nothing at {path}; see /docs")
    if error.status_code == NOT_ALLOWED:
        allow = (error.headers or {}).get("Allow", "")
        if allow == "GET":
            allow = "GET, HEAD"
        return MethodNotAllowedError(
            f"{request.method} is not taken at {path}; {allow} is", allow=allow
        )
    return MalformedRequestError(str(error.detail))


def _validation_error(error: RequestValidationError) -> InvalidParameterError:
    """What FastAPI found in a typed route, as this service's own error."""
    first = error.errors()[0]
    name = str(first["loc"][-1])
    return InvalidParameterError(
        f"{name} is {str(first['input'])[:80]!r}: {first['msg'].lower()}"
    )
