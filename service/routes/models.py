"""`GET /models`: **what is loaded**, from the manifests."""

from fastapi import APIRouter, Request
from pydantic import TypeAdapter

from service.catalog import Catalog, CatalogEntry
from service.openapi import problems
from service.parameters import read_parameters
from service.serving import Serving
from service.shapes import Input, LongVersion, ModelDetail, ModelList, ModelSummary


def build_models_router(serving: Serving) -> APIRouter:
    """The two routes."""
    router = APIRouter(tags=["models"])

    @router.get(
        "/models",
        operation_id="list_models",
        summary="List the loaded models",
        responses=problems(),
    )
    async def list_models() -> ModelList:
        """Every loaded bundle, by name and version."""
        catalog = serving.catalog
        return ModelList(models=[summary(model, catalog) for model in catalog])

    @router.get(
        "/models/{name}",
        operation_id="get_model",
        summary="Describe a model",
        responses=problems(
            "model_not_found",
            "invalid_parameter",
            invalid_parameter="version is 'latest'; a whole number from 1 on is "
            "allowed",
        ),
        openapi_extra={
            "parameters": [
                {
                    "name": "version",
                    "in": "query",
                    "required": False,
                    "description": "Unset: the newest loaded.",
                    "schema": TypeAdapter(LongVersion).json_schema(),
                }
            ]
        },
    )
    async def describe_model(name: str, request: Request) -> ModelDetail:
        """All that the manifest says: labels, thresholds, metrics, provenance."""
        # read as everywhere: FastAPI would pass over what is unknown or given twice
        query = request.scope["query_string"]
        version = read_parameters(query, allowed=("version",)).version
        model = serving.catalog.find(name, version)
        return ModelDetail(
            **summary(model, serving.catalog).model_dump(),
            versions=serving.catalog.versions(name),
            manifest=model.manifest.model_dump(mode="json"),
        )

    return router


def summary(model: CatalogEntry, catalog: Catalog) -> ModelSummary:
    """The facts of one bundle that a list shows."""
    manifest = model.manifest
    spec = manifest.preprocess
    newest = catalog.find(manifest.name)
    return ModelSummary(
        name=manifest.name,
        version=manifest.version,
        default=manifest.name == catalog.default and model is newest,
        description=manifest.description,
        task=manifest.task,
        labels=len(manifest.labels),
        input=Input(
            height=spec.height, width=spec.width, color=spec.color, resize=spec.resize
        ),
        # a bundle may name more than its answers hold: a binary one has one prediction
        top_k=min(manifest.postprocess.top_k, model.postprocessor.max_top_k),
        precision=model.loaded.precision,
        device=model.loaded.device,
        explains=model.loaded.explains,
    )
