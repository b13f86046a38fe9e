"""Outcomes as tensors, where a label or a task needs care."""

import asyncio
import json

import numpy as np

from classifier.decode import ImageInfo
from classifier.manifest import Manifest, Task
from classifier.postprocess import probabilities
from service.contract import Outcome, Timing
from service.oip.descriptions import output_sizes
from service.oip.request import Inference, Output
from service.oip.response import column_labels, columns, write_answer
from service.routes.infer import VALUES_ON_LOOP, write
from tests.synthetic import manifest_fields

BEST = [Output("scores", binary=False, classes=1)]


def manifest(task: Task = Task.MULTICLASS, *, first_label: str = "red") -> Manifest:
    """A manifest whose first label can be chosen."""
    fields = manifest_fields("any", task)
    fields["labels"][0]["name"] = first_label
    return Manifest.model_validate_json(json.dumps(fields))


def outcome(of: Manifest, *logits: float) -> Outcome:
    """What an engine gives for one image."""
    row = np.array(logits, np.float32)
    scores = probabilities(row[None], of.postprocess)[0]
    timing = Timing(0, 0, 0, 0, 1)
    return Outcome(row, scores, ImageInfo(8, 8, "PNG"), (), timing)


def test_a_colon_in_a_label_does_not_split_it():
    """`value:index:label` is split at its colons by every client."""
    model = manifest(first_label="time: 12:30")

    text, _ = write_answer(model, Inference([], [], BEST), [outcome(model, 9, 0, 0)])

    (data,) = json.loads(text)["outputs"][0]["data"]
    assert data.split(":")[1:] == ["0", "time; 12;30"]


def test_a_label_of_any_script_is_told_in_utf_8():
    """Its length is counted in bytes then."""
    model = manifest(first_label="красный 🟥")
    wanted = [Output("scores", binary=True, classes=1)]

    body, headers = write_answer(
        model, Inference([], [], wanted), [outcome(model, 9, 0, 0)]
    )

    text = body[int(dict(headers)[b"inference-header-content-length"]) :]
    assert int.from_bytes(text[:4], "little") == len(text) - 4
    assert text[4:].decode().endswith(":0:красный 🟥")


def test_every_task_has_the_columns_that_its_description_tells():
    """Those of the scores are the labels, of every task."""
    for task in Task:
        model = manifest(task)
        row = outcome(model, *range(model.logits))
        for name, size in output_sizes(model).items():
            assert columns(model, name, [row, row]).shape == (2, size)
            assert len(column_labels(model, name)) == size


def test_a_binary_model_has_its_own_score_for_each_label():
    """Its one logit speaks for the second: for it 0.75 is as much as 1 to 3."""
    model = manifest(Task.BINARY)
    row = outcome(model, float(np.log(3)))
    negative, positive = (label.name for label in model.labels)
    both = [Output("scores", binary=False, classes=2)]

    text, _ = write_answer(model, Inference([], [], both), [row])

    assert columns(model, "scores", [row]).tolist() == [[0.25, 0.75]]
    assert json.loads(text)["outputs"][0]["data"] == [
        f"0.75:1:{positive}",
        f"0.25:0:{negative}",
    ]
    assert column_labels(model, "logits") == [positive]


def test_a_float_of_the_json_is_that_of_the_engine():
    """To the last digit."""
    model = manifest()
    row = outcome(model, 0.1, 1 / 3, 16.000001)
    wanted = [Output("logits", binary=False)]

    text, _ = write_answer(model, Inference([], [], wanted), [row])

    data = np.array(json.loads(text)["outputs"][0]["data"], np.float32)
    np.testing.assert_array_equal(data, row.logits)


def test_a_long_answer_does_not_keep_others_waiting():
    """The event loop turns while its texts are written; a short one is not worth it."""
    model = manifest()
    inference = Inference([], [], BEST)
    fits = VALUES_ON_LOOP // len(model.labels)

    async def turns_while_written(count: int) -> int:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        outcomes = [outcome(model, 9, 0, 0)] * count
        assert await write(model, inference, outcomes) == write_answer(
            model, inference, outcomes
        )
        turning.cancel()
        return turns

    assert asyncio.run(turns_while_written(fits)) == 0
    assert asyncio.run(turns_while_written(fits + 1)) > 0
