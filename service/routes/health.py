"""`/livez`, `/readyz`, `/metrics`: **how it goes**, for machines."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from service.openapi import problems
from service.serving import Serving
from service.shapes import Health


def build_health_router(serving: Serving) -> APIRouter:
    """The three routes."""
    router = APIRouter(tags=["operations"])

    @router.get(
        "/livez",
        operation_id="check_live",
        summary="Does the process live?",
        responses=problems(),
    )
    async def live() -> Health:
        """Answers while the event loop turns. Restart the process when it does not."""
        return Health(status="live")

    @router.get(
        "/readyz",
        operation_id="check_ready",
        summary="May traffic come?",
        responses=problems("not_ready", "draining"),
    )
    async def ready() -> Health:
        """Models loaded, golden examples replayed, lanes warm, and not stopping.

        Where several processes serve the port, of each that has it.
        """
        await serving.check_ready()
        return Health(status="ready")

    @router.get(
        "/metrics",
        operation_id="get_metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={
            200: {
                "description": "Text exposition format 0.0.4.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **problems(),
        },
    )
    async def metrics() -> Response:
        """Requests, images, latencies, batch sizes and queues."""
        return Response(
            await serving.metrics_page(),
            headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4},
        )

    return router
