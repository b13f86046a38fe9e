"""What the request log tells of requests, and what it leaves out."""

import json
from io import StringIO

from service.exchange import RequestLog
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
