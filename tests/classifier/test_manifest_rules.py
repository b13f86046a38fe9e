"""What the parts of a manifest demand of one another."""

import pytest

from classifier.manifest import Precision, Task
from tests.classifier.test_manifest import Fields, changed, read, wrong
from tests.synthetic import manifest_fields


def resized(resize: str, short_side: int | None) -> Fields:
    """A manifest whose 8 x 8 pixels come about in that way."""
    fields = changed(("preprocess", "resize"), resize)
    fields["preprocess"]["short_side"] = short_side
    return fields


def test_a_crop_needs_a_short_side_that_covers_it():
    """And nothing else may have one: it would say something that is not done."""
    read(resized("crop", 8))
    assert "needs at least 8" in wrong(resized("crop", 7))["preprocess"]
    assert "needs at least 8" in wrong(resized("crop", None))["preprocess"]
    wide = resized("crop", 8)
    wide["preprocess"]["width"] = 12
    assert "needs at least 12" in wrong(wide)["preprocess"]
    assert "must be null" in wrong(resized("pad", 8))["preprocess"]
    assert "must be null" in wrong(resized("squash", 8))["preprocess"]


def whole(task: Task, **postprocess: object) -> Fields:
    """A manifest of that task with other postprocessing."""
    fields = manifest_fields("colors", task)
    fields["postprocess"] |= postprocess
    return fields


@pytest.mark.parametrize("task", Task)
def test_each_task_has_a_valid_manifest(task):
    """K is 1 for binary and else the number of labels."""
    manifest = read(manifest_fields("colors", task))

    assert manifest.logits == (1 if task is Task.BINARY else 3)
    assert manifest.graph(Precision.FP32) is manifest.graphs[0]
    assert manifest.graph(Precision.INT8) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (whole(Task.BINARY, activation="softmax"), "binary needs 'sigmoid'"),
        (whole(Task.MULTILABEL, activation="softmax"), "multilabel needs 'sigmoid'"),
        (whole(Task.MULTICLASS, activation="sigmoid"), "multiclass needs 'softmax'"),
        (whole(Task.FINE_GRAINED, activation="sigmoid"), "needs 'softmax'"),
        (whole(Task.BINARY, thresholds=None), "needs 1 thresholds, not None"),
        (whole(Task.BINARY, thresholds=[0.5, 0.5]), "needs 1 thresholds, not 2"),
        (whole(Task.MULTILABEL, thresholds=[0.5]), "needs 3 thresholds, not 1"),
        (whole(Task.MULTICLASS, thresholds=[0.5] * 3), "needs None thresholds"),
        (whole(Task.BINARY, abstain_threshold=0.5), "must be null for binary"),
        (whole(Task.MULTILABEL, abstain_threshold=0.5), "must be null for multilabel"),
        (whole(Task.MULTICLASS, top_k=4), "top_k is 4; there are 3 labels"),
    ],
)
def test_postprocessing_must_fit_the_task(fields, message):
    """Two halves of a manifest that contradict one another are refused."""
    assert message in wrong(fields)[""]


def test_labels_must_fit_the_task():
    """Ids are unique, binary has two labels, and fine-grained ones have groups."""
    twice = changed(("labels", 2, "id"), "red")
    ungrouped = changed(("labels", 2, "group"), None)
    three = manifest_fields("colors", Task.BINARY)
    three["labels"].append({"id": "third", "name": "third", "group": None})

    assert "'red' occurs more than once" in wrong(twice)[""]
    assert "'blue' has no group" in wrong(ungrouped)[""]
    assert "2 labels (negative, positive), not 3" in wrong(three)[""]


def test_graphs_must_differ():
    """In precision and in file."""
    precision = changed(("graphs", 1, "precision"), "fp32")
    file = changed(("graphs", 1, "file"), "model.onnx")

    assert "a precision occurs more than once" in wrong(precision)[""]
    assert "two graphs name the same file" in wrong(file)[""]
