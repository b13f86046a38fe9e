"""`POST /v2/models/{name}/infer`: images or pixels in, **scores and logits** out.

Plain ASGI, as `/classify`: a tensor passes through no parser but its own. The protocol
has no place for the error of one image, so that the first one is that of the request.
"""

import asyncio
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from classifier.errors import ImageError
from classifier.manifest import Manifest
from service.asking import classify_decoded, classify_many
from service.bodies import image_too_large
from service.catalog import CatalogEntry
from service.contract import Outcome, Settled, Timing, outcome_of
from service.disconnect import CancelOnDisconnect
from service.errors import EngineFailedError, ItemError, ServiceError
from service.exchange import Headers, exchange_of
from service.images import JSON_IN_THREAD_BYTES, off_loop
from service.oip.compression import decompress, encoding_of
from service.oip.descriptions import find_model
from service.oip.request import (
    IMAGE,
    PIXELS,
    Inference,
    header_bytes_of,
    read_inference,
)
from service.oip.response import write_answer
from service.problems import problem_of
from service.responses import send_answer, server_timing
from service.serving import Serving

# Of an output that is written at once: 7 ms of texts `value:index:label`. Of 64 images
# and 1,000 labels they kept all others waiting for a quarter of a second.
VALUES_ON_LOOP = 2_048


class Infer:
    """The endpoint."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """bytes → images or pixels → outcomes → tensors."""
        serving, exchange = self._serving, exchange_of(scope)
        with serving:
            entry = find_model(serving.catalog, **scope["path_params"])
            exchange.facts["model"], exchange.facts["version"] = entry.key
            try:
                inference, deadline = await self._read(scope, receive, entry)
                exchange.facts["images"] = inference.count
                async with CancelOnDisconnect(receive):
                    settled = await self._run(entry, inference, deadline)
            finally:
                serving.bodies.release(exchange)
            outcomes = all_of(settled, PIXELS if inference.pixels else IMAGE)
            body, headers = await write(entry.manifest, inference, outcomes)
            timing = Timing.longest([outcome.timing for outcome in outcomes])
            if timing is not None:
                exchange.timed(timing)
                headers.append((b"server-timing", server_timing(timing)))
            headers.append((b"content-length", b"%d" % len(body)))
            await send_answer(send, body, headers)

    async def _read(
        self, scope: Scope, receive: Receive, entry: CatalogEntry
    ) -> tuple[Inference, float]:
        """What is asked, and the deadline, which counts from the complete body."""
        settings, bodies = self._serving.settings, self._serving.bodies
        encoding, header_bytes = encoding_of(scope), header_bytes_of(scope)
        limit = settings.max_batch_body_bytes
        body = await bodies.read(scope, receive, limit=limit)
        complete, deadline = asyncio.get_running_loop().time(), self._serving.deadline()
        if encoding is not None:
            body = await decompress(body, encoding, scope, bodies, limit=limit)
        inference = await off_loop(
            body,
            lambda body: read_inference(
                body,
                header_bytes,
                shape=entry.manifest.preprocess.shape,
                max_items=settings.max_batch_items,
            ),
            JSON_IN_THREAD_BYTES,
        )
        if inference.timeout_us is not None:
            deadline = min(deadline, complete + inference.timeout_us / 1e6)
        return inference, deadline

    async def _run(
        self, entry: CatalogEntry, inference: Inference, deadline: float
    ) -> list[Settled]:
        """What becomes of each image, counted."""
        engine, key, metrics = self._serving.engine, entry.key, entry.metrics
        try:
            check_images(inference.images, self._serving.settings.max_body_bytes)
            if inference.pixels:
                settled = await classify_decoded(
                    engine, key, inference.pixels, deadline=deadline
                )
            else:
                settled = await classify_many(
                    engine, key, inference.images, deadline=deadline
                )
        except ServiceError as error:  # the request is refused as a whole
            for _ in range(inference.count):
                metrics.failed(problem_of(error).code)
            raise
        for fate in settled:
            if isinstance(fate, Outcome):
                metrics.answered(fate.timing)
            else:
                metrics.failed(problem_of(fate).code)
        return settled


async def write(
    manifest: Manifest, inference: Inference, outcomes: Sequence[Outcome]
) -> tuple[bytes, Headers]:
    """The answer: short ones are written here, long ones in a thread."""
    if len(outcomes) * len(manifest.labels) <= VALUES_ON_LOOP:
        return write_answer(manifest, inference, outcomes)
    return await asyncio.to_thread(write_answer, manifest, inference, outcomes)


def check_images(images: Sequence[bytes], limit: int) -> None:
    """Raises ItemError of the first image that has more bytes than one may have."""
    for position, image in enumerate(images):
        if len(image) > limit:
            error = image_too_large(len(image), limit)
            raise ItemError(f"{IMAGE}[{position}]", error)


def all_of(settled: Sequence[Settled], name: str) -> list[Outcome]:
    """The outcomes, if every image has one.

    Raises:
        ItemError: what is wrong with the first image that has none.
        ServiceError: it was too late, or refused, which is no image's fault.
    """
    outcomes = []
    for position, fate in enumerate(settled):
        try:
            outcomes.append(outcome_of(fate))
        except (ImageError, EngineFailedError) as error:
            raise ItemError(f"{name}[{position}]", error) from error
    return outcomes
