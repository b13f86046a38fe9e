"""LitServe: FastAPI fronts, a queue, worker processes that decode, stack and run.

Documented: the steps of `LitAPI` with `max_batch_size` and `batch_timeout`, one worker
(its pages "Batching" and "Speed up serving by 200x"). Tuned: a worker a core with
one-thread sessions and the faster transport (`fast_queue`, ZeroMQ). The body is raw in
both: cheaper for it than the base64 in JSON of its examples.
"""

from typing import Annotated, Any

import litserve
from fastapi import Body

from bench.peers.arrangement import Served


class Api(litserve.LitAPI):
    """bytes → pixels → answers, in a worker."""

    def setup(self, device: str) -> None:
        """Load the model in the worker; `device` is the CPU."""
        self._model = Served.from_environment().load_model()

    def decode_request(self, request: Annotated[bytes, Body()]) -> Any:
        """One image, uint8 [H, W, C]."""
        return self._model.pixels(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """The model stacks by itself."""
        return inputs

    def predict(self, x: Any) -> Any:
        """A list of images, or one where batching is off."""
        return self._model.answers(x if isinstance(x, list) else [x])

    def unbatch(self, output: list[Any]) -> list[Any]:
        """One answer for each image."""
        return output

    def encode_response(self, output: Any) -> Any:
        """The answer, as JSON by FastAPI."""
        return output[0] if isinstance(output, list) else output


def main() -> None:
    """Serve as arranged until terminated."""
    served = Served.from_environment()
    arranged = served.arrangement
    api = Api(
        max_batch_size=arranged.batch,
        batch_timeout=arranged.wait_ms / 1e3,
        api_path="/classify",
    )
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=arranged.processes,
        fast_queue=arranged.tuned,
        track_requests=False,
        timeout=30,
    )
    server.run(
        host="127.0.0.1",
        port=served.port,
        num_api_servers=arranged.fronts,
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
