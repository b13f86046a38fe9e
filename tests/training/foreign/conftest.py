"""A stranger's graph and some answers → a loaded bundle."""

import itertools

import pytest
from PIL import Image

from classifier import Classifier
from tests.training.foreign.importing import SAID
from tests.training.foreign.strangers import photo
from training.foreign.answers import parse_answers
from training.foreign.bundle import Origin, import_graph
from training.foreign.source import read_graph


@pytest.fixture
def importer(tmp_path):
    """Import a graph with some answers; returns the loaded bundle."""
    sample = tmp_path / "sample.png"
    Image.fromarray(photo(1)).save(sample)
    counter = itertools.count()

    def run(model, labels=4, samples=(sample,), **said) -> Classifier:
        path = tmp_path / "stranger.onnx"
        path.write_bytes(model.SerializeToString())
        names = tmp_path / "labels.txt"
        names.write_text("\n".join(f"label {n}" for n in range(labels)))
        given = {**SAID, "labels": str(names), **said}
        answers = parse_answers({k: v for k, v in given.items() if v is not None})
        name = f"s{next(counter)}"
        origin = Origin(path, name, "A stranger.", "MIT", "a test", "linnaeus import")
        folder = import_graph(
            read_graph(path), answers, origin, samples=samples, models=tmp_path
        )
        return Classifier.load(folder, device="cpu")

    return run
