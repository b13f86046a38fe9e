"""One image in, its answer out, however it is sent and whatever the task is."""

import base64
import re

import pytest

from classifier import Classifier
from service.contract import Timing
from service.responses import server_timing
from tests.service.conftest import BLUE, GRAY, GREEN, RED, send

AS_JSON = {"Content-Type": "application/json"}


def without_id(response):
    """The answer but for the id of its request."""
    assert response.status_code == 200, response.text
    return {k: v for k, v in response.json().items() if k != "id"}


def test_the_reddest_image_is_red(client):
    """The whole answer of a multiclass model, as documented."""
    answer = without_id(send(client, RED))

    best, *others = answer.pop("predictions")
    assert (best["label"], best["index"], best["id"]) == ("red", 0, "red")
    assert best["score"] > 0.99
    assert [o["label"] for o in others] == ["green", "blue"]
    assert answer == {
        "model": {"name": "colors", "version": 1},
        "task": "multiclass",
        "image": {"width": 8, "height": 8, "format": "PNG"},
        "warnings": [],
    }


@pytest.mark.parametrize("task", ["colors", "is-red", "has", "shades"])
@pytest.mark.parametrize("image", [RED, GREEN, BLUE, GRAY])
def test_http_and_library_give_the_same_scores(client, bundles, task, image):
    """To the last bit: the same bytes through the same preprocessing and graph."""
    expected = Classifier.load(bundles / task).classify(image)

    answer = without_id(send(client, image, model=task))

    assert [(p["label"], p["score"]) for p in answer["predictions"]] == [
        (p.label, p.score) for p in expected.predictions
    ]
    assert answer.get("decision") == expected.decision
    assert answer.get("abstained", False) == expected.abstained


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "IMAGE/X-ANY"])
def test_the_bytes_tell_the_format_and_not_the_header(client, content_type):
    """A browser guesses the type from the file's name, which may be wrong."""
    response = client.post(
        "/classify", content=RED, headers={"Content-Type": content_type}
    )

    assert response.json()["image"]["format"] == "PNG"


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: {"content": RED, "headers": {"Content-Type": "image/png"}},
        lambda: {
            "content": RED,
            "headers": {"Content-Type": "application/octet-stream"},
        },
        lambda: {"content": RED},  # no Content-Type at all
        lambda: {
            "content": iter([RED[:20], RED[20:]]),  # chunked
            "headers": {"Content-Type": "image/png"},
        },
        lambda: {"files": {"file": ("red.png", RED, "image/png")}},
        lambda: {"files": {"file": ("ohne Umlaut ä.png", RED)}},
        lambda: {"json": {"image": base64.b64encode(RED).decode()}},
    ],
    ids=["image", "octets", "untyped", "chunked", "form", "form-utf8", "json"],
)
def test_every_way_to_send_an_image_gives_the_same_answer(client, request_of):
    """Raw, chunked, as a form, as JSON."""
    answer = without_id(client.post("/classify", **request_of()))

    assert answer == without_id(send(client, RED))


def test_a_binary_model_gives_score_threshold_and_decision(client):
    """Of the positive label."""
    red, green = (
        without_id(send(client, image, model="is-red")) for image in (RED, GREEN)
    )

    assert (red["decision"], green["decision"]) == ("red", "not red")
    assert red["predictions"][0]["threshold"] == 0.9
    assert green["predictions"][0]["label"] == "red"


def test_a_multilabel_model_gives_every_label_over_its_threshold(client):
    """None of them when none is there."""
    yellow = without_id(send(client, GRAY, model="has"))

    assert [p["label"] for p in yellow["predictions"]] == ["red", "green", "blue"]
    assert all(p["threshold"] == 0.9 for p in yellow["predictions"])
    assert without_id(send(client, RED, model="has"))["predictions"][0]["label"] == (
        "red"
    )


def test_a_fine_grained_model_gives_its_groups(client):
    """A group's score is the sum of its labels'."""
    answer = without_id(send(client, RED, model="shades"))

    assert answer["groups"][0]["group"] == "warm"
    assert sum(g["score"] for g in answer["groups"]) == pytest.approx(1, abs=1e-6)


def test_a_model_abstains_under_its_threshold(client):
    """Gray is no color of its own, so the model says that it does not know."""
    answer = without_id(send(client, GRAY, model="shades"))

    assert answer["abstained"] is True
    assert answer["predictions"] == []
    assert "abstained" not in without_id(send(client, RED, model="shades"))


def test_top_k_chooses_how_many_predictions(client):
    """From one to all labels."""
    assert len(without_id(send(client, RED, top_k=1))["predictions"]) == 1
    assert len(without_id(send(client, RED, top_k=3))["predictions"]) == 3


def test_threshold_goes_before_the_bundle_s(client):
    """At 1 hardly anything counts."""
    answer = without_id(send(client, GRAY, model="has", threshold=1))

    assert answer["predictions"] == []


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"top_k": 4}, 422, "top_k is 4; for this model 1 to 3 are allowed"),
        ({"top_k": 0}, 422, "the least allowed is 1"),
        ({"threshold": 1.5}, 422, "a number from 0 to 1"),
        ({"topk": 1}, 422, "'topk' is not a parameter"),
        ({"explain": "true"}, 422, "explain is not available for model 'colors'"),
        ({"model": "dog"}, 404, "'dog' is not loaded; loaded are colors, has"),
        ({"model": "colors", "version": 7}, 404, "no version 7 loaded; loaded are 1"),
    ],
)
def test_a_parameter_that_is_not_allowed_is_refused(client, query, status, said):
    """Naming what was given and what is allowed."""
    response = send(client, RED, **query)

    assert response.status_code == status
    assert said in response.json()["detail"]


def test_a_request_keeps_its_own_id(client):
    """So that logs of several services can be joined."""
    response = client.post(
        "/classify", content=RED, headers={"X-Request-ID": "a-1.b:2"}
    )

    assert response.headers["X-Request-ID"] == response.json()["id"] == "a-1.b:2"


@pytest.mark.parametrize("given", ["", "x" * 129, 'a"b', "a b", "<script>"])
def test_an_id_that_could_do_harm_is_replaced(client, given):
    """It will be written into logs and JSON."""
    response = client.post("/classify", content=RED, headers={"X-Request-ID": given})

    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["X-Request-ID"])
    assert response.headers["X-Request-ID"] == response.json()["id"]


def test_the_answer_says_where_its_time_went(client):
    """Server-Timing, which browsers draw."""
    header = send(client, RED).headers["Server-Timing"]

    assert re.fullmatch(
        r"decode;dur=[\d.]+, queue;dur=[\d.]+, "
        r'batch;dur=[\d.]+;desc="\d+", infer;dur=[\d.]+',
        header,
    )
    timing = Timing(
        decode_ms=1.0, queue_ms=2.0, batch_ms=4.0, infer_ms=8.0, batch_size=16
    )
    assert server_timing(timing) == (
        b'decode;dur=1.000, queue;dur=2.000, batch;dur=4.000;desc="16", infer;dur=8.000'
    )


def test_the_form_takes_only_the_image(client):
    """A parameter hidden in the form would be ignored elsewhere; here it is named."""
    response = client.post("/classify", files={"file": RED}, data={"top_k": "1"})

    assert response.status_code == 422
    assert "'top_k'; only 'file' is allowed" in response.json()["detail"]


@pytest.mark.parametrize("body", [RED, b"", b"\xef\xbb\xbf{}", b"," * 99])
def test_what_is_no_json_is_called_so(client, body):
    """An image under a wrong Content-Type is the usual reason."""
    response = client.post("/classify", content=body, headers=AS_JSON)

    assert response.status_code == 400
    assert "the body is not JSON; send an image as it is" in response.json()["detail"]
