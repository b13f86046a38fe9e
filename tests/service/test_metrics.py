"""What is counted: each image by its code, and each value in its range."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.contract import Timing
from service.metrics import Distribution, Metrics, ModelMetrics
from tests.service.conftest import RED, send
from tests.service.oip.bodies import INFER, in_json


def by_fast_path(client):
    """One image, as the body."""
    return send(client, b"garbage")


def by_asgi(client):
    """The same, as a form."""
    return client.post("/classify", files={"file": b"garbage"})


def in_batch(client):
    """One of two."""
    files = [("files", RED), ("files", b"garbage")]
    return client.post("/classify/batch", files=files)


@pytest.mark.parametrize("ask", [by_fast_path, by_asgi, in_batch])
def test_an_image_without_an_answer_is_counted_by_its_code(server, ask):
    """Whichever way it came."""
    counts = server.app.serving.metrics.images.values
    labels = ("colors", "1", "image_format_unsupported")
    before = counts.get(labels, 0)

    ask(server.client)

    assert counts[labels] == before + 1


@pytest.mark.parametrize(
    ("second", "status", "code"),
    [(RED, 503, "overloaded"), (bytes(200_001), 413, "body_too_large")],
    ids=["overloaded", "body_too_large"],
)
def test_the_images_of_an_inference_that_is_refused_whole_are_counted(
    server, monkeypatch, second, status, code
):
    """Each of them, as those of a batch are."""
    counts = server.app.serving.metrics.images.values
    labels = ("colors", "1", code)
    before = counts.get(labels, 0)

    monkeypatch.setattr(server.app.serving.engine._backlog, "capacity", 1)
    answer = server.client.post(INFER, json=in_json(RED, second))

    assert answer.status_code == status
    assert counts.get(labels, 0) == before + 2


def test_the_page_adds_up_what_was_counted():
    """In seconds, by ranges that include those below. To wait for mates is to wait:
    whoever alerts on the queue wants all of it, until a lane came and until it ran."""
    metrics = Metrics()
    model = ModelMetrics(metrics, ("colors", 1))
    for size in (1, 3):
        model.answered(Timing(1000.0, 2000.0, 4000.0, 8000.0, size))
    for elapsed_s in (0.2, 0.3):
        metrics.answered("/classify", 200, "ok", elapsed_s)

    page = text_string_to_metric_families(metrics.page().decode())
    found = {
        (sample.name.removeprefix("linnaeus_"), sample.labels.get("le")): sample.value
        for family in page
        for sample in family.samples
    }
    sums = {name: value for (name, _), value in found.items() if "_sum" in name}
    assert sums == {
        "request_seconds_sum": pytest.approx(0.5),
        "decode_seconds_sum": 2.0,
        "queue_seconds_sum": 12.0,
        "infer_seconds_sum": 16.0,
        "batch_size_sum": 4.0,
    }
    sizes = [found["batch_size_bucket", le] for le in ("1", "2", "4", "+Inf")]
    assert sizes == [1, 1, 2, 2]


def test_a_value_on_a_bound_belongs_to_the_range_below_it():
    """Prometheus says `le`: less or equal."""
    line = Distribution((1.0, 2.0))

    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        line.observe(value)

    assert line.counts == [2, 2, 1]


def test_what_is_alerted_of_is_there_before_it_has_happened():
    """To Prometheus a counter that is born at 5 has not risen."""
    assert b"\nlinnaeus_connections_refused_total 0.0\n" in Metrics().page()
