"""Many images in one request: an answer or an error for each, in order."""

import asyncio
import base64
import json

import numpy as np
import pytest

from classifier.bundle import load_bundle
from classifier.decode import ImageInfo
from service import errors
from service.catalog import CatalogEntry
from service.contract import LoadedModel, Outcome, Timing
from service.metrics import Metrics
from service.parameters import Parameters
from service.problems import problem_of
from service.routes.batch import _raise_common, write_results
from service.shapes import BatchAnswer
from tests.service.conftest import BLUE, GREEN, RED, send
from tests.synthetic import make_bundle, png

GARBAGE = b"not an image"
POISON = png((255, 0, 0))  # fails inside ONNX Runtime


def post(client, images, **query):
    """Send images as a form."""
    files = [("files", (f"{i}", image)) for i, image in enumerate(images)]
    return client.post("/classify/batch", files=files, params=query)


def post_json(client, images, **query):
    """Send images as JSON; bytes become base64, anything else stays what it is."""
    texts = [
        base64.b64encode(image).decode() if isinstance(image, bytes) else image
        for image in images
    ]
    return client.post("/classify/batch", json={"images": texts}, params=query)


@pytest.mark.parametrize("post", [post, post_json])
def test_answers_come_in_the_order_of_the_images(client, post):
    """And each has an id of its own."""
    response = post(client, [RED, GREEN, BLUE, RED])

    body = response.json()
    assert [r["predictions"][0]["label"] for r in body["results"]] == (
        ["red", "green", "blue", "red"]
    )
    assert (body["succeeded"], body["failed"]) == (4, 0)
    assert [r["id"] for r in body["results"]] == [
        f"{response.headers['X-Request-ID']}/{i}" for i in range(4)
    ]
    BatchAnswer.model_validate_json(response.content)


@pytest.mark.parametrize("post", [post, post_json])
def test_one_bad_image_does_not_disturb_its_neighbors(client, post):
    """Only the sender of garbage hears of it, in its own place."""
    response = post(client, [RED, GARBAGE, b"", GREEN])

    assert response.status_code == 200
    good, bad, empty, also_good = response.json()["results"]
    assert good["predictions"][0]["label"] == "red"
    assert also_good["predictions"][0]["label"] == "green"
    assert (bad["error"]["status"], empty["error"]["status"]) == (415, 400)
    assert (response.json()["succeeded"], response.json()["failed"]) == (2, 2)
    BatchAnswer.model_validate_json(response.content)


def test_an_item_that_is_not_base64_has_its_own_error(client):
    """Also one that is not even a string."""
    results = post_json(client, ["%%%", None, 7, RED, "data:image/png;base64,AA=="])

    details = [
        r["error"]["detail"] if "error" in r else "" for r in results.json()["results"]
    ]
    assert [bool(detail) for detail in details] == [True, True, True, False, True]
    assert "images[0] is not base64" in details[0]
    assert "images[1] is not a string" in details[1]
    assert "data: URL" in details[4]


@pytest.mark.parametrize("item", [None, 7, ["QQ=="], {}, "%", "", "data:,", "QUJD"])
def test_an_item_has_the_problem_of_its_image_alone(client, item):
    """Whatever stands in its place in the JSON."""
    alone = client.post("/classify", json={"image": item})
    error = post_json(client, [item]).json()["results"][0]["error"]

    assert (error["status"], error["code"]) == (alone.status_code, alone.json()["code"])
    assert error["detail"].replace("images[0]", "image") == alone.json()["detail"]


def test_an_image_that_breaks_the_engine_fails_alone(client):
    """The batch is bisected until the guilty one is found; 500 says nothing of why."""
    results = post(client, [GREEN, POISON, BLUE], model="poison").json()["results"]

    assert [("error" in r) for r in results] == [False, True, False]
    assert results[1]["error"]["code"] == "engine_failed"
    assert "log" in results[1]["error"]["detail"]


def test_a_batch_gives_the_scores_of_single_requests(client):
    """Batching changes the speed and nothing else."""
    together = post(client, [RED, GREEN, BLUE]).json()["results"]

    for image, answer in zip([RED, GREEN, BLUE], together, strict=True):
        assert answer["predictions"] == send(client, image).json()["predictions"]


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        (lambda: {"files": [("files", RED)] * 9}, 413, "too_many_images"),
        (lambda: {"json": {"images": [""] * 9}}, 413, "too_many_images"),
        (lambda: {"json": {"images": [1] * 50_000}}, 413, "too_many_images"),
        (lambda: {"json": {"images": []}}, 400, "image_empty"),
        (lambda: {"json": {"image": ""}}, 422, "invalid_parameter"),
        (lambda: {"json": []}, 422, "invalid_parameter"),
        (lambda: {"content": RED}, 415, "media_type_unsupported"),
        (lambda: {"files": {"file": RED}}, 422, "invalid_parameter"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused_whole(client, request_of, status, code):
    """Nothing of it is run."""
    response = client.post("/classify/batch", **request_of())

    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_batch_is_logged_by_its_images_and_tells_its_longest_times(server):
    """Those of its single images would be many."""
    images = [RED, GARBAGE, GREEN]
    response = post(server.client, images)

    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    mine = response.headers["X-Request-ID"]
    (line,) = [each for each in lines if each.get("request_id") == mine]
    assert (line["images"], line["succeeded"]) == (3, 2)
    assert response.headers["Server-Timing"].startswith("decode;dur=")


@pytest.mark.parametrize(
    ("met", "status"),
    [
        ([], None),
        ([errors.DeadlineExceededError("late")] * 2, 504),
        ([errors.NotReadyError("no lane")] * 2, 503),
        ([errors.DeadlineExceededError("late"), errors.EngineFailedError("")], None),
        ([errors.EngineFailedError("")] * 2, None),
    ],
)
def test_only_what_another_try_may_mend_is_the_status_of_all(met, status):
    """And only if every image met it."""
    found = None
    try:
        _raise_common(met)
    except errors.ServiceError as error:
        found = problem_of(error).status

    assert found == status


async def test_while_a_large_batch_is_written_others_have_their_turns(tmp_path):
    """All labels of many images take a third of a second; a few are written in one."""
    make_bundle(tmp_path, "many", classes=1000)
    manifest = load_bundle(tmp_path / "many").manifest
    entry = CatalogEntry(LoadedModel(manifest, "fp32", "cpu", False), Metrics())
    scores = np.full(1000, 1e-3, np.float32)
    timing = Timing(1.0, 1.0, 1.0, 1.0, 1)
    outcome = Outcome(scores, scores, ImageInfo(8, 8, "PNG"), (), timing)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def turns_of(top_k: int) -> int:
        nonlocal turns
        turns = 0
        await write_results(
            entry,
            [outcome] * 20,
            Parameters(top_k=top_k),
            request_id="a",
            request_log=None,
        )
        return turns

    others = asyncio.create_task(count())
    found = [await turns_of(k) for k in (1000, 5)]
    others.cancel()

    assert found[0] >= 10
    assert found[1] == 0
