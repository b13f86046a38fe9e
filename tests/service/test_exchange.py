"""What the request log tells of requests, and what it leaves out."""

import json
from io import StringIO
from types import SimpleNamespace

import pytest

from classifier.errors import ImageDecodeError
from service.contract import Timing
from service.errors import DeadlineExceededError, EngineFailedError, OverloadedError
from service.exchange import RequestLog, RequestMiddleware
from service.logs import build_log
from service.metrics import Metrics
from service.settings import Settings


def test_a_full_service_has_a_line_a_second_for_all_that_it_refuses(monkeypatch):
    """A line takes longer than a refusal; each is counted, and the next line says how
    many had none."""
    stream, metrics = StringIO(), Metrics()
    request_log = RequestLog(build_log(Settings(log_format="json"), stream), metrics)

    def refuse() -> None:
        exchange = request_log.open("POST", "/classify", [])
        exchange.code, exchange.status = "overloaded", 503
        request_log.close(exchange, "/classify")

    monkeypatch.setattr("service.logs.QUIET_S", 1_000)
    for _ in range(4):
        refuse()
    monkeypatch.setattr("service.logs.QUIET_S", 0)
    refuse()
    refuse()

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("untold") for line in lines] == [None, 3, None]
    assert metrics.requests.values == {("/classify", "503", "overloaded"): 6}


@pytest.fixture
def stream() -> StringIO:
    """Where the log is written."""
    return StringIO()


@pytest.fixture
def request_log(stream) -> RequestLog:
    """Of a process that has served nothing yet."""
    return RequestLog(build_log(Settings(log_format="json"), stream), Metrics())


def lines_of(stream: StringIO) -> list[dict]:
    """What was logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_milliseconds_and_no_more_of_a_path_than_fits(request_log, stream):
    """Who looks for a slow request sees where its time went."""
    exchange = request_log.open("POST", "/" + "x" * 999, [])
    exchange.started_s -= 2
    exchange.status = 200
    exchange.timed(Timing(1.0, 2.0, 4.0, 8.0, batch_size=16))
    request_log.close(exchange, "other")

    (line,) = lines_of(stream)
    assert 2_000 <= line["elapsed_ms"] < 100_000
    assert line["path"] == "/" + "x" * 199
    assert (line["queue_ms"], line["infer_ms"], line["batch_size"]) == (6, 8, 16)


@pytest.mark.parametrize(
    ("error", "level", "told"),
    [
        (ImageDecodeError("cut off"), "info", None),
        (EngineFailedError("broken"), "error", None),  # in the line of the fault
        (OverloadedError("full"), "error", "OverloadedError: full"),
        (DeadlineExceededError("late"), "error", "DeadlineExceededError: late"),
    ],
)
def test_what_is_the_service_s_doing_is_an_error_of_the_log(
    request_log, stream, error, level, told
):
    """With its cause, which is not always in the answer."""
    exchange = request_log.open("POST", "/classify", [])
    exchange.status = request_log.problem_for(exchange, error).status
    request_log.close(exchange, "/classify")

    line = lines_of(stream)[-1]
    assert (line["event"], line["level"], line.get("error")) == ("request", level, told)


async def test_what_breaks_in_the_middle_of_an_answer_is_no_second_answer(
    request_log, stream
):
    """The server cuts the connection. Its line has what was sent; the fault has one of
    its own."""
    sent = []

    async def breaks(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half-way")

    async def send(message):
        sent.append(message["type"])

    state = SimpleNamespace(draining=False)
    app = RequestMiddleware(breaks, request_log=request_log, state=state)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(RuntimeError, match="half-way"):
        await app(scope, None, send)

    assert sent == ["http.response.start"]
    fault, line = lines_of(stream)
    assert (fault["event"], fault["request_id"]) == ("fault", line["request_id"])
    assert (line["status"], line["code"]) == (200, "ok")
