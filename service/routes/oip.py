"""`/v2`: the Open Inference Protocol, **all but inference**: health and descriptions.

An unready service answers 503 there as on `/readyz`: clients take whatever is not 200
for no.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from service.catalog import CatalogEntry
from service.errors import MethodNotAllowedError, ServiceError, shown
from service.oip import shapes
from service.oip.descriptions import (
    configure_model,
    describe_model,
    describe_server,
    find_model,
    list_models,
)
from service.oip.documented import TAG, refusals
from service.openapi import Responses
from service.serving import Serving

UNREADY = ("not_ready", "draining")


def build_oip_router(serving: Serving, version: str) -> APIRouter:
    """All routes of the protocol but `infer`."""
    router = APIRouter(prefix="/v2", tags=[TAG])

    @router.get(
        "",
        operation_id="v2_server",
        summary="Describe the server",
        responses=refusals(),
    )
    async def server() -> shapes.ServerMetadata:
        """Its version, and Triton's extensions that are here."""
        return describe_server(version)

    _add_health(router, serving)
    _add_models(router, serving)
    _add_repository(router, serving)
    return router


def _add_health(router: APIRouter, serving: Serving) -> None:
    @router.get(
        "/health/live",
        operation_id="v2_live",
        summary="Is the server live?",
        responses=refusals(),
    )
    async def live() -> shapes.ServerLive:
        """As `/livez`."""
        return shapes.ServerLive(live=True)

    @router.get(
        "/health/ready",
        operation_id="v2_ready",
        summary="Is the server ready?",
        responses=refusals(*UNREADY),
    )
    async def ready() -> shapes.ServerReady:
        """As `/readyz`."""
        await serving.check_ready()
        return shapes.ServerReady(live=True, ready=True)


def _add_models(router: APIRouter, serving: Serving) -> None:
    """Those of a model."""
    unknown = refusals("model_not_found")

    async def metadata(model: CatalogEntry) -> shapes.ModelMetadata:
        """Its inputs, of which a request has one, and its outputs."""
        versions = serving.catalog.versions(model.manifest.name)
        return describe_model(model.manifest, versions)

    async def ready(model: CatalogEntry) -> shapes.ModelReady:
        """It is loaded, and the server is ready."""
        await serving.check_ready()
        return shapes.ModelReady(name=model.manifest.name, ready=True)

    async def config(model: CatalogEntry) -> shapes.ModelConfig:
        """As Triton would describe it."""
        max_items = serving.settings.max_batch_items
        return configure_model(model.manifest, max_items=max_items)

    add = partial(_add_model_route, router, serving)
    add("", metadata, shapes.ModelMetadata, unknown)
    add("/ready", ready, shapes.ModelReady, refusals("model_not_found", *UNREADY))
    add("/config", config, shapes.ModelConfig, unknown)


def _add_model_route(
    router: APIRouter,
    serving: Serving,
    path: str,
    answer: Callable[[CatalogEntry], Awaitable[BaseModel]],
    shape: type[BaseModel],
    responses: Responses,
) -> None:
    """With the version in the path and without."""

    async def newest(name: str) -> BaseModel:
        return await answer(find_model(serving.catalog, name))

    async def numbered(name: str, version: str) -> BaseModel:
        return await answer(find_model(serving.catalog, name, version))

    endpoints: Mapping[str, tuple[str, Callable[..., Any]]] = {
        "/models/{name}": ("v2_model", newest),
        "/models/{name}/versions/{version}": ("v2_version", numbered),
    }
    for place, (kind, endpoint) in endpoints.items():
        router.add_api_route(
            place + path,
            endpoint,
            operation_id=f"{kind}_{answer.__name__}",
            summary=f"A model: {answer.__name__}",
            description=answer.__doc__ or "",
            response_model=shape,
            responses=responses,
        )


def _add_repository(router: APIRouter, serving: Serving) -> None:
    @router.post(
        "/repository/index",
        operation_id="v2_index",
        summary="List the models",
        responses=refusals(),
    )
    async def index() -> list[shapes.IndexEntry]:
        """Every version that is loaded. A body changes nothing."""
        try:
            await serving.check_ready()
        except ServiceError as error:
            return list_models(serving.catalog, str(error))
        return list_models(serving.catalog, None)

    @router.post("/repository/models/{name}/load", include_in_schema=False)
    @router.post("/repository/models/{name}/unload", include_in_schema=False)
    async def change(name: str) -> None:
        # An empty `Allow` is for what the configuration forbids (RFC 9110, 15.5.6). A
        # 503, which Triton answers, would ask clients to try again.
        raise MethodNotAllowedError(
            f"model {shown(name)} is neither loaded nor unloaded here: models are "
            "fixed at the start (LINNAEUS_LOAD)",
            allow="",
        )
