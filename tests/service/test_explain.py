"""`explain=true`: where the first prediction was seen, over HTTP."""

import asyncio
import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from classifier import Classifier, Task
from service import shapes
from service.asking import classify
from service.engine.engine import LaneEngine
from service.settings import Settings
from tests.service.conftest import BLUE, RED, running, send
from tests.synthetic import GAIN, POISON, make_bundle, png

TURNED_RIGHT = 6  # EXIF orientation: upright after a quarter turn to the right
LARGE = (64, 64)  # pixels a side that no image served on the event loop has


def red_quarter(
    row: int, column: int, *, width: int = 8, orientation: int = 1
) -> bytes:
    """A black image, as a PNG, of which one quarter is red."""
    image, half = Image.new("RGB", (width, 8)), width // 2
    image.paste((240, 0, 0), (half * column, 4 * row, half * (column + 1), 4 * row + 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Bundles with class maps, of several tasks; one that breaks; one without."""
    root = tmp_path_factory.mktemp("explained")
    make_bundle(root, "colors", class_maps=True)
    make_bundle(root, "is-red", Task.BINARY, class_maps=True)
    make_bundle(root, "has", Task.MULTILABEL, class_maps=True)
    make_bundle(root, "careful", class_maps=True, abstain_threshold=0.9)
    make_bundle(root, "poison", class_maps=True, misbehaves=True, slow_loops=1)
    make_bundle(root, "blind")
    return root


@pytest.fixture(scope="module")
def explaining(settings_for, models):
    """A server of those."""
    with running(settings_for(models=models)) as server:
        yield server


@pytest.fixture(scope="module")
def client(explaining):
    """A client of it."""
    return explaining.client


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("column", [0, 1])
def test_the_map_is_strongest_where_the_image_is_red(client, row, column):
    """One quarter is red, and one place of the grid is 1."""
    answer = send(client, red_quarter(row, column), explain="true").json()

    expected = [[0, 0], [0, 0]]
    expected[row][column] = 1
    assert answer["explanation"] == {
        "index": 0,
        "label": "red",
        "grid": expected,
        "region": [0, 0, 1, 1],
    }
    shapes.Answer.model_validate(answer)


def test_a_turned_image_is_explained_upright(client):
    """Red at the upper left as stored is at the upper right for a person."""
    image = red_quarter(0, 0, width=16, orientation=TURNED_RIGHT)

    answer = send(client, image, explain="true").json()

    assert (answer["image"]["width"], answer["image"]["height"]) == (8, 16)
    grid = np.array(answer["explanation"]["grid"])
    assert grid[0, 1] == 1
    # but for what scaling to the network's square smears over the edge
    assert grid.sum() < 1.1


def test_a_binary_model_explains_its_positive_label(client):
    """Whatever it decides."""
    answer = send(client, BLUE, model="is-red", explain="true").json()

    assert answer["decision"] == "not red"
    assert answer["explanation"]["label"] == answer["predictions"][0]["label"] == "red"
    assert answer["explanation"]["index"] == 1


@pytest.mark.parametrize(
    ("query"), [{"model": "has", "threshold": 1}, {"model": "careful"}]
)
def test_without_a_prediction_there_is_nothing_to_explain(client, query):
    """No label over its threshold, or a model that abstains."""
    answer = send(client, png((90, 90, 90)), explain="true", **query).json()

    assert answer["predictions"] == []
    assert "explanation" not in answer


@pytest.mark.parametrize("size", [(8, 8), LARGE])
def test_an_explanation_changes_nothing_else(client, size):
    """Same predictions to the last digit; and none unless it is asked for."""
    image = png((200, 30, 90), size)

    plain = send(client, image).json()
    declined = send(client, image, explain="false").json()
    asked = send(client, image, explain="true").json()

    assert "explanation" not in plain
    assert plain["predictions"] == asked["predictions"] == declined["predictions"]
    assert set(asked) - set(plain) == {"explanation"}


def test_a_batch_explains_each_image_as_alone(client, models):
    """The library, a request and a batch say the same; a bad image has its error."""
    library = Classifier.load(models / "colors", threads=1)
    random = np.random.default_rng(1)
    images = [
        png(tuple(random.integers(0, 255, 3).tolist()), (8 + n, 9)) for n in range(5)
    ] + [red_quarter(1, 0)]
    encoded = [base64.b64encode(image).decode() for image in [*images, b"no image"]]

    *results, bad = client.post(
        "/classify/batch", json={"images": encoded}, params={"explain": "true"}
    ).json()["results"]

    assert bad["error"]["code"] == "image_format_unsupported"
    for image, result in zip(images, results, strict=True):
        alone = send(client, image, explain="true").json()
        assert result["explanation"] == alone["explanation"]
        found = library.explain(image)
        assert result["explanation"]["grid"] == [list(row) for row in found.grid]


def test_an_image_that_breaks_its_run_disturbs_no_other(client):
    """Explained images run one by one, and their errors stay their own."""
    images = [RED, png((POISON, 0, 0)), BLUE]
    encoded = [base64.b64encode(image).decode() for image in images]

    first, broken, last = client.post(
        "/classify/batch",
        json={"images": encoded},
        params={"explain": "true", "model": "poison"},
    ).json()["results"]

    assert broken["error"]["code"] == "engine_failed"
    assert first["explanation"]["label"] == "red"
    assert last["explanation"]["label"] == "blue"


async def test_lanes_serve_those_who_ask_beside_those_who_do_not(models):
    """Both kinds in one batch: each gets its own logits, and maps only who asked."""
    engine = LaneEngine(Settings(models=models, load=("colors",), lanes=1))
    await engine.start()
    images = [png((n, 90, 20), LARGE) for n in range(0, 240, 10)]
    try:
        outcomes = await asyncio.gather(
            *(
                classify(
                    engine, ("colors", 1), image, deadline=None, explain=n % 3 == 0
                )
                for n, image in enumerate(images)
            )
        )
    finally:
        await engine.close()

    for n, outcome in enumerate(outcomes):
        np.testing.assert_allclose(
            outcome.logits, np.array([10 * n, 90, 20]) * GAIN / 255, rtol=1e-5
        )
        assert (outcome.class_maps is not None) == (n % 3 == 0)
        if outcome.class_maps is not None:
            means = outcome.class_maps.mean(axis=(1, 2))
            np.testing.assert_allclose(means, outcome.logits, rtol=1e-5)


def test_a_model_says_whether_it_explains(client):
    """Before anyone asks; and refuses by name, alone and in a batch."""
    listed = {m["name"]: m["explains"] for m in client.get("/models").json()["models"]}

    assert listed.pop("blind") is False
    assert all(listed.values())
    query = {"explain": "true", "model": "blind"}
    files = [("files", ("a.png", RED, "image/png"))]
    for refused in (
        send(client, RED, **query),
        client.post("/classify/batch", files=files, params=query),
    ):
        assert refused.status_code == 422
        assert "not available for model 'blind'" in refused.json()["detail"]
