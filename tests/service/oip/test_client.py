"""`tritonclient.http`, as NVIDIA ships it, asks a real server."""

from types import SimpleNamespace

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from classifier import Classifier
from service.app import project_version
from service.settings import Settings
from tests.service.conftest import BLUE, GREEN, RED, running
from tests.service.processes import serve
from tests.synthetic import make_bundle, png

POISON = png((255, 0, 0))  # fails inside ONNX Runtime


@pytest.fixture(scope="module")
def asked(server: SimpleNamespace):
    """A client of the shared server."""
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def image(*files: bytes) -> triton.InferInput:
    """Encoded files, binary."""
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    return tensor.set_data_from_numpy(np.array(files, dtype=np.object_))


def pixels(values: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    """uint8 [N, H, W, C]."""
    tensor = triton.InferInput("pixels", values.shape, "UINT8")
    return tensor.set_data_from_numpy(values, binary_data=binary)


def wanted(**how: object) -> list[triton.InferRequestedOutput]:
    """Both outputs, the same way."""
    return [triton.InferRequestedOutput(name, **how) for name in ("scores", "logits")]


def test_health_is_told(asked):
    """Of the server and of each model; what is not loaded is not ready."""
    assert asked.is_server_live()
    assert asked.is_server_ready()
    assert asked.is_model_ready("colors")
    assert asked.is_model_ready("colors", "1")
    assert not asked.is_model_ready("colors", "2")
    assert not asked.is_model_ready("nobody")


def test_the_server_tells_only_extensions_that_it_has(asked):
    """A client that relies on one of the others would be misled."""
    assert asked.get_server_metadata() == {
        "name": "linnaeus",
        "version": project_version(),
        "extensions": ["classification", "model_configuration", "binary_tensor_data"],
    }


@pytest.mark.parametrize(
    ("model", "scores", "logits"), [("colors", 3, 3), ("is-red", 2, 1), ("has", 3, 3)]
)
def test_a_model_tells_the_tensors_that_it_takes_and_gives(
    asked, model, scores, logits
):
    """What is told is what comes, for each task."""
    told = asked.get_model_metadata(model, "1")
    result = asked.infer(model, [image(RED, BLUE)])

    assert told["inputs"] == [
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
        {"name": "pixels", "datatype": "UINT8", "shape": [-1, 8, 8, 3]},
    ]
    assert told["outputs"] == [
        {"name": "scores", "datatype": "FP32", "shape": [-1, scores]},
        {"name": "logits", "datatype": "FP32", "shape": [-1, logits]},
    ]
    assert (told["name"], told["versions"]) == (model, ["1"])
    assert result.as_numpy("scores").shape == (2, scores)
    assert result.as_numpy("logits").shape == (2, logits)


def test_the_configuration_says_that_one_input_is_enough(asked):
    """Both are optional there, as a request has one."""
    config = asked.get_model_config("is-red")

    assert asked.get_model_metadata("is-red")["platform"] == "onnxruntime_onnx"
    assert config == {
        "name": "is-red",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [
            {
                "name": "image",
                "data_type": "TYPE_STRING",
                "format": "FORMAT_NONE",
                "dims": [],
                "optional": True,
            },
            {
                "name": "pixels",
                "data_type": "TYPE_UINT8",
                "format": "FORMAT_NHWC",
                "dims": [8, 8, 3],
                "optional": True,
            },
        ],
        "output": [
            {"name": "scores", "data_type": "TYPE_FP32", "dims": [2]},
            {"name": "logits", "data_type": "TYPE_FP32", "dims": [1]},
        ],
        "dynamic_batching": {},
    }


def test_the_index_lists_every_version(asked, server):
    """As `GET /models` does."""
    index = asked.get_model_repository_index()

    models = server.client.get("/models").json()["models"]
    assert [(e["name"], e["version"]) for e in index] == [
        (model["name"], str(model["version"])) for model in models
    ]
    assert {entry["state"] for entry in index} == {"READY"}


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_an_image_gives_the_numbers_of_the_library(asked, bundles, compression, binary):
    """However its bytes and its answer travel."""
    library = Classifier.load(bundles / "colors", threads=1)
    batch = np.stack([library.preprocess(file).pixels for file in (RED, GREEN)])
    logits = library.session.run(batch)

    result = asked.infer(
        "colors",
        [image(RED, GREEN)],
        outputs=wanted(binary_data=binary),
        request_id="mine",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )

    np.testing.assert_array_equal(result.as_numpy("logits"), logits)
    np.testing.assert_array_equal(
        result.as_numpy("scores"), library.postprocessor.scores(logits)
    )
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_give_the_numbers_of_their_image(asked, bundles, binary):
    """Who preprocesses as the bundle says gets the same answer."""
    files = [RED, png((40, 90, 200), (30, 20))]
    library = Classifier.load(bundles / "colors", threads=1)
    batch = np.stack([library.preprocess(file).pixels for file in files])

    by_image = asked.infer("colors", [image(*files)])
    by_pixels = asked.infer("colors", [pixels(batch, binary=binary)])

    for name in ("scores", "logits"):
        one, other = by_image.as_numpy(name), by_pixels.as_numpy(name)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("model", ["colors", "is-red", "has", "shades"])
def test_the_golden_examples_of_a_bundle_can_be_replayed(asked, bundles, model):
    """From outside, with what the bundle itself holds."""
    golden = np.load(bundles / model / "1" / "golden.npz", allow_pickle=False)

    result = asked.infer(model, [pixels(golden["pixels"])])

    (name,) = [name for name in golden.files if name != "pixels"]
    np.testing.assert_allclose(result.as_numpy("logits"), golden[name], atol=1e-4)


def test_the_golden_examples_of_a_shipped_bundle_give_their_logits(repository):
    """Within what its manifest allows; gray pixels, so a channel of one."""
    models, name = repository / "models", "digits"
    (folder,) = (models / name).iterdir()
    golden = np.load(folder / "golden.npz", allow_pickle=False)
    settings = Settings(
        models=models, load=(name,), precision="fp32", device="cpu", port=0, processes=1
    )
    with (
        running(settings) as served,
        triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client,
    ):
        result = client.infer(name, [pixels(golden["pixels"])])

    np.testing.assert_allclose(
        result.as_numpy("logits"), golden["logits_fp32"], atol=1e-3
    )


def test_requests_run_side_by_side(server):
    """And each gets its own."""
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4) as c:
        asked = [
            c.async_infer("colors", [image(png((red, 0, 0)))])
            for red in range(0, 80, 10)
        ]
        logits = [each.get_result().as_numpy("logits")[0, 0] for each in asked]

    np.testing.assert_allclose(logits, [red * 16 / 255 for red in range(0, 80, 10)])


def test_the_best_classes_come_as_texts(asked):
    """At most as many as there are; a binary model has both of its labels."""
    of_colors = asked.infer("colors", [image(RED, BLUE)], outputs=wanted(class_count=9))
    of_is_red = asked.infer("is-red", [image(RED)], outputs=wanted(class_count=1))

    scores = of_colors.as_numpy("scores")
    assert scores.shape == (2, 3)
    best = [row[0].decode().split(":") for row in scores]
    assert [parts[1:] for parts in best] == [["0", "red"], ["2", "blue"]]
    assert all(0.99 < float(value) <= 1 for value, *_ in best)
    assert of_is_red.as_numpy("scores")[0, 0].decode().endswith(":1:red")
    assert of_is_red.as_numpy("logits")[0, 0].decode().endswith(":0:red")


def test_a_binary_model_scores_both_labels(asked):
    """In the order of its labels; the positive one has what `/classify` says."""
    result = asked.infer("is-red", [image(RED, BLUE)])

    negative, positive = result.as_numpy("scores").T
    np.testing.assert_allclose(negative + positive, 1)
    sigmoid = 1 / (1 + np.exp(-result.as_numpy("logits")[:, 0]))
    np.testing.assert_allclose(positive, sigmoid, rtol=1e-6)


@pytest.mark.parametrize(
    ("ask", "status", "text"),
    [
        (lambda c: c.infer("nobody", [image(RED)]), 404, "nobody' is not loaded"),
        (lambda c: c.infer("colors", [image(RED)], "9"), 404, "no version 9"),
        (lambda c: c.infer("colors", [image(RED)], "x"), 404, "'x' is no whole number"),
        (lambda c: c.infer("colors", [image(RED, b"x")]), 415, "image[1]: not an"),
        (lambda c: c.infer("colors", [image(RED[:44])]), 422, "image[0]: "),
        (lambda c: c.infer("colors", [image(b"")]), 400, "image[0]: "),
        (lambda c: c.infer("colors", [image(*[RED] * 9)]), 413, "has 9 images"),
        (lambda c: c.infer("poison", [image(RED, POISON)]), 500, "image[1]: The cause"),
        (lambda c: c.load_model("colors"), 405, "fixed at the start"),
        (lambda c: c.unload_model("colors"), 405, "fixed at the start"),
        (lambda c: c.get_inference_statistics("colors"), 404, "there is nothing at"),
        (lambda c: c.get_trace_settings(), 404, "there is nothing at"),
        (lambda c: c.get_system_shared_memory_status(), 404, "there is nothing at"),
    ],
)
def test_an_error_is_shown_as_the_server_says_it(asked, ask, status, text):
    """The client shows the member `error`, and nothing of a body without one."""
    with pytest.raises(InferenceServerException) as raised:
        ask(asked)

    assert raised.value.status() == str(status)
    assert text in raised.value.message()


def test_a_timeout_shortens_the_deadline(settings_for):
    """In microseconds; a lane of that model has its hands full."""
    slow = image(*[png((249, 0, 0), (300, 300))] * 4)
    settings = settings_for(lanes=1, batch=1, decode="lane")
    with (
        running(settings) as served,
        triton.InferenceServerClient(
            f"127.0.0.1:{served.port}", network_timeout=60
        ) as client,
        pytest.raises(InferenceServerException) as raised,
    ):
        client.infer("poison", [slow], timeout=50_000)

    assert raised.value.status() in ("503", "504")


def test_several_processes_answer_for_one_engine(tmp_path):
    """A front-end writes pixels into memory that it shares with the engine."""
    make_bundle(tmp_path, "colors")
    batch = np.zeros((3, 8, 8, 3), np.uint8)
    batch[..., 2] = [[[50]], [[100]], [[150]]]
    with serve(tmp_path, LINNAEUS_PROCESSES="2", LINNAEUS_ENGINE="shared") as service:
        service.logged("handed over", members=1)
        with triton.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
            by_pixels = client.infer("colors", [pixels(batch)]).as_numpy("logits")
            by_image = client.infer("colors", [image(RED)]).as_numpy("scores")
        counted = service.metric("linnaeus_images_total", code="ok")

    np.testing.assert_allclose(by_pixels[:, 2] * 255 / 16, [50, 100, 150], rtol=1e-5)
    assert by_image.argmax() == 0
    assert counted == 4
