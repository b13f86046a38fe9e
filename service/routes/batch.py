"""`POST /classify/batch`: many images in, an **answer or an error for each** out."""

import asyncio
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from classifier.errors import ClassifierError
from service.asking import classify_many
from service.bodies import image_too_large
from service.catalog import CatalogEntry
from service.contract import Outcome, Settled, Timing, outcome_of
from service.disconnect import CancelOnDisconnect
from service.errors import DeadlineExceededError, ServiceError, UnavailableError
from service.exchange import RequestLog, exchange_of
from service.images import ACCEPT_MANY, content_type_of, read_images
from service.jsons import to_json
from service.parameters import Parameters
from service.responses import send_json
from service.routes.question import read_question
from service.serving import Serving

# Of answers that are written before the loop may turn: 6 ms of predictions.
BYTES_A_TURN = 64 * 1024


class ClassifyMany:
    """The endpoint."""

    def __init__(self, serving: Serving, request_log: RequestLog) -> None:
        self._serving = serving
        self._request_log = request_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """bytes → images → outcomes → answers, in the order sent."""
        serving, exchange = self._serving, exchange_of(scope)
        with serving:
            content_type = content_type_of(scope, accept=ACCEPT_MANY)
            question = read_question(scope["query_string"], serving, exchange)
            entry, parameters = question.entry, question.parameters
            try:
                images, deadline = await self._read(scope, receive, content_type)
                async with CancelOnDisconnect(receive):
                    outcomes = await self._run(
                        entry, images, deadline=deadline, explain=parameters.explain
                    )
            finally:
                serving.bodies.release(exchange)
            results = await write_results(
                entry,
                outcomes,
                parameters,
                request_id=exchange.request_id,
                request_log=self._request_log,
            )
            ran = [o.timing for o in outcomes if isinstance(o, Outcome)]
            exchange.facts["images"], exchange.facts["succeeded"] = (
                len(images),
                len(ran),
            )
            await send_json(send, results, timing=Timing.longest(ran))

    async def _read(
        self, scope: Scope, receive: Receive, content_type: str
    ) -> tuple[list[bytes | ServiceError], float]:
        """The images, and the deadline, which counts from the complete body."""
        settings = self._serving.settings
        body = await self._serving.bodies.read(
            scope, receive, limit=settings.max_batch_body_bytes
        )
        deadline = self._serving.deadline()
        images = await read_images(
            body, content_type, max_items=settings.max_batch_items
        )
        bounded = [_bounded(image, settings.max_body_bytes) for image in images]
        return bounded, deadline

    async def _run(
        self,
        entry: CatalogEntry,
        images: Sequence[bytes | ServiceError],
        *,
        deadline: float,
        explain: bool,
    ) -> list[Settled]:
        """Run those that could be read; put each outcome back into its place.

        Raises:
            UnavailableError, DeadlineExceededError: that befell every image, so that a
                balancer or a client's retry sees it in the status.
        """
        readable = [image for image in images if isinstance(image, bytes)]
        try:
            ran = await classify_many(
                self._serving.engine,
                entry.key,
                readable,
                deadline=deadline,
                explain=explain,
            )
            _raise_common(ran)
        except ServiceError as error:
            for _ in images:  # each image is counted, as single ones are
                entry.metrics.failed(error.code)
            raise
        following = iter(ran)
        return [
            next(following) if isinstance(image, bytes) else image for image in images
        ]


async def write_results(
    entry: CatalogEntry,
    outcomes: Sequence[Settled],
    parameters: Parameters,
    *,
    request_id: str,
    request_log: RequestLog,
) -> bytes:
    """The JSON of a batch: `shapes.BatchAnswer`. An item's id ends in its position.

    With all labels of many images it takes long, so others have their turn meanwhile.
    """
    results = []
    failed = written = 0
    for position, fate in enumerate(outcomes):
        item_id = f"{request_id}/{position}"
        try:
            answer = entry.answer(outcome_of(fate), parameters, request_id=item_id)
            results.append(answer)
        except (ClassifierError, ServiceError) as error:
            problem = request_log.problem(error, request_id=item_id)
            entry.metrics.failed(problem.code)
            members = to_json({"error": problem.members(item_id)})
            results.append(members)
            failed += 1
        written += len(results[-1])
        if written >= BYTES_A_TURN:
            written = 0
            await asyncio.sleep(0)
    return b'{"results":[%b],"succeeded":%d,"failed":%d}' % (
        b",".join(results),
        len(results) - failed,
        failed,
    )


def _raise_common(ran: Sequence[Settled]) -> None:
    """Raises what every image met, if that is a 503 or a 504."""
    first = ran[0] if ran else None
    if isinstance(first, UnavailableError | DeadlineExceededError) and all(
        type(other) is type(first) for other in ran
    ):
        raise first


def _bounded(image: bytes | ServiceError, limit: int) -> bytes | ServiceError:
    if isinstance(image, bytes) and len(image) > limit:
        return image_too_large(len(image), limit)
    return image
