"""Labelled images are read as the bundle's task sees them."""

import json
from pathlib import Path

import pytest

from classifier.manifest import Manifest, Task
from tests.synthetic import manifest_fields
from tests.training.data.pictures import encoded
from training.bundling.next_version import DataSource, splits_for
from training.errors import DataError
from training.evaluation.labelled import open_labelled


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three images, the second of which has no label."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(encoded("red", 1))
    path = tmp_path / "labels.csv"
    path.write_text("file,label\na.png,red\nb.png,\nc.png,green\n")
    return path


def manifest(task: Task) -> Manifest:
    """That of a bundle which knows red, green and blue."""
    return Manifest.model_validate_json(json.dumps(manifest_fields("colors", task)))


def test_a_missing_label_is_named_by_line(table: Path):
    """To evaluate and to optimize, whose task is that of the bundle."""
    line = r"labels\.csv, line 3: 0 labels where exactly one"
    with pytest.raises(DataError, match=line):
        open_labelled(table, manifest(Task.MULTICLASS), split="all")
    with pytest.raises(DataError, match=line):
        splits_for(manifest(Task.MULTICLASS), DataSource(table))


def test_an_image_of_several_labels_may_have_none(table: Path):
    """Nothing is missing where the bundle gives each label a yes or no."""
    _, part = open_labelled(table, manifest(Task.MULTILABEL), split="all")

    assert part.labels.tolist() == [[0, 1], [0, 0], [1, 0]]
