"""`POST /classify`: one image in, its **answer** out.

Plain ASGI: an image as the body passes through neither pydantic nor a form parser. What
is simple enough never comes here: see `service/fast_path.py`.
"""

from starlette.types import Receive, Scope, Send

from classifier.errors import ClassifierError
from service.asking import classify
from service.disconnect import CancelOnDisconnect
from service.errors import ServiceError
from service.exchange import exchange_of
from service.images import ACCEPT_ONE, content_type_of, read_image
from service.problems import problem_of
from service.responses import send_json
from service.routes.question import read_question
from service.serving import Serving


class ClassifyOne:
    """The endpoint."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """bytes → image → outcome → answer; every refusal is raised as its error."""
        serving = self._serving
        if not exchange_of(scope).accepted:  # once is enough, also while draining
            serving.enter()
        try:
            await self._answer(scope, receive, send)
        finally:
            serving.leave()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving, exchange = self._serving, exchange_of(scope)
        content_type = content_type_of(scope, accept=ACCEPT_ONE)
        question = read_question(scope["query_string"], serving, exchange)
        entry, parameters = question.entry, question.parameters
        limit = serving.settings.max_body_bytes
        try:
            body = await serving.bodies.read(scope, receive, limit=limit)
            deadline = serving.deadline()  # first: to read an image takes time, too
            image = await read_image(body, content_type)
            async with CancelOnDisconnect(receive):
                outcome = await classify(
                    serving.engine,
                    entry.key,
                    image,
                    deadline=deadline,
                    explain=parameters.explain,
                )
            answer = entry.answer(outcome, parameters, request_id=exchange.request_id)
        except (ClassifierError, ServiceError) as error:
            entry.metrics.failed(problem_of(error).code)
            raise
        finally:
            serving.bodies.release(exchange)
        exchange.timed(outcome.timing)
        await send_json(send, answer, timing=outcome.timing)
