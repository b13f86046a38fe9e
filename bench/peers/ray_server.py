"""Ray Serve: an HTTP proxy, replicas behind it, `@serve.batch` inside them.

Documented: a deployment whose handler awaits the body and a batched method
(its page "Dynamic Request Batching"). Tuned: a replica a core with one-thread sessions,
behind HAProxy and with the other throughput settings that its page "Enable High
Throughput" names; see the catalog. Neither logs requests.
"""

import signal
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from bench.peers.arrangement import Served

SERVED = Served.from_environment()
ARRANGED = SERVED.arrangement
QUIET = {"enable_access_log": False}  # of the proxy, and of each replica
REPLICAS: dict[str, Any] = {
    "num_replicas": ARRANGED.processes,
    "max_ongoing_requests": 256,
    "logging_config": QUIET,
}


@serve.deployment(**REPLICAS)
class Batched:
    """Batches across the requests of one replica."""

    def __init__(self) -> None:
        self._model = SERVED.load_model()

    @serve.batch(
        max_batch_size=ARRANGED.batch, batch_wait_timeout_s=ARRANGED.wait_ms / 1e3
    )
    async def classify(self, images: list[bytes]) -> list[dict[str, Any]]:
        """Many images at once, from several requests."""
        return self._model.classify_many(images)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        return await self.classify(await request.body())


@serve.deployment(**REPLICAS)
class Single:
    """Each request by itself."""

    def __init__(self) -> None:
        self._model = SERVED.load_model()

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request; on the replica's loop, a thread would only add a hop."""
        return self._model.classify(await request.body())


def main() -> None:
    """Serve as arranged until terminated."""
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    http_options = {"host": "127.0.0.1", "port": SERVED.port}
    serve.start(http_options=http_options, logging_config=QUIET)
    deployment = Batched if ARRANGED.batch > 1 else Single
    serve.run(deployment.bind(), route_prefix="/classify")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
