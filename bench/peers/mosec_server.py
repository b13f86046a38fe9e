"""Mosec: a Rust front, worker processes behind it, batches formed in the front.

Documented: a preprocessing stage of several processes before an inference stage that
batches by 16, with the numbers of its examples/resnet50_msgpack; the raw body through
`deserialize`, which its documentation shows for binary input. Tuned: one stage in which
each process decodes and runs one-thread sessions, so that pixels never cross a pipe.
"""

import sys
from typing import Any

import orjson
from mosec import Server, Worker

from bench.peers.arrangement import Served

CAPACITY, TIMEOUT_MS = 1024, 30_000


class Preprocess(Worker):
    """bytes → pixels, in its own processes."""

    def __init__(self) -> None:
        self._decoder = Served.from_environment().load_decoder()

    def deserialize(self, data: bytes) -> bytes:
        """The raw body is the image; Mosec hands over a bytearray."""
        return bytes(data)

    def forward(self, data: bytes) -> Any:
        """One image."""
        return self._decoder.pixels(data)


class Infer(Worker):
    """pixels → answers, batched by the front."""

    def __init__(self) -> None:
        served = Served.from_environment()
        self._model = served.load_model()
        self._single = served.arrangement.batch == 1
        self._tuned = served.arrangement.tuned

    def serialize(self, data: Any) -> bytes:
        """By orjson when tuned; by default Mosec indents what Python writes."""
        if self._tuned:
            return orjson.dumps(data)
        return super().serialize(data)

    def forward(self, data: Any) -> Any:
        """A list of images, or one where batching is off."""
        if self._single:
            return self._model.answers([data])[0]
        return self._model.answers(data)


class Classify(Infer):
    """bytes → answers, in one process."""

    def deserialize(self, data: bytes) -> bytes:
        """The raw body is the image; Mosec hands over a bytearray."""
        return bytes(data)

    def forward(self, data: Any) -> Any:
        """A list of image files, or one where batching is off."""
        if self._single:
            return self._model.classify(data)
        return self._model.classify_many(data)


def main() -> None:
    """Serve as arranged until terminated."""
    served = Served.from_environment()
    arranged = served.arrangement
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(served.port)]
    sys.argv += ["--capacity", str(CAPACITY), "--timeout", str(TIMEOUT_MS)]
    server = Server()
    batching = {
        "num": arranged.processes,
        "max_batch_size": arranged.batch,
        "max_wait_time": max(round(arranged.wait_ms), 1),
    }
    if arranged.decoders:
        server.append_worker(Preprocess, num=arranged.decoders, route="/classify")
        server.append_worker(Infer, **batching, route="/classify")
    else:
        server.append_worker(Classify, **batching, route="/classify")
    server.run()


if __name__ == "__main__":
    main()
