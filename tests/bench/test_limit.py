"""bundle + machine → limit, on a bundle so small that its rate means nothing."""

from concurrent.futures import BrokenExecutor
from types import SimpleNamespace

import pytest

from bench.limit import candidates, search
from bench.model import Model
from bench.pipelines import Pipeline, Trial, measure
from classifier import Classifier
from classifier.manifest import Task
from tests.synthetic import make_bundle, png

IMAGES = tuple(png((value, 0, 0)) for value in (10, 60, 120, 180, 240))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Three colors."""
    return make_bundle(tmp_path_factory.mktemp("models"), task=Task.MULTICLASS)


def test_the_search_is_over_different_arrangements():
    """Threads and processes, decoding beside and ahead, without trying one twice."""
    found = candidates(2)

    assert len(set(found)) == len(found)
    assert {p.kind for p in found} == {"threads", "processes"}
    assert {p.decode for p in found} == {"beside", "ahead"}


def test_on_one_core_there_is_nothing_to_run_ahead():
    """Only the batch size is open."""
    assert {(p.workers, p.threads, p.decode) for p in candidates(1)} == {
        (1, 1, "beside")
    }


@pytest.mark.parametrize("kind", ["threads", "processes"])
@pytest.mark.parametrize("decode", ["beside", "ahead"])
def test_every_kind_of_pipeline_classifies(bundle, kind, decode):
    """A rate comes out of each, whole batches of it."""
    pipeline = Pipeline(kind, decode, workers=2, threads=1, batch=3)

    assert measure(Trial(pipeline, bundle, "fp32", IMAGES, seconds=0.05)) > 0


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_trial_whose_decoders_cannot_start_ends(tmp_path, monkeypatch, kind):
    """At once, rather than starting them again and again until time is up."""
    monkeypatch.setattr(Trial, "load_model", lambda self: SimpleNamespace(run=list))
    pipeline = Pipeline(kind, "ahead", workers=2, threads=1, batch=3)

    with pytest.raises(BrokenExecutor):
        measure(Trial(pipeline, tmp_path / "missing", "fp32", IMAGES, seconds=0.05))


def test_the_search_ends_with_three_finalists_best_first(bundle, monkeypatch):
    """Each with a rate for every round."""
    threads = [p for p in candidates(2, batches=(1, 2)) if p.kind == "threads"]
    monkeypatch.setattr("bench.limit.candidates", lambda cores: threads)

    best = search(bundle, "fp32", IMAGES, seconds=0.06, rounds=2)

    assert len(best) == 3
    assert all(len(rates) == 2 for _, rates in best)
    medians = [sum(rates) / 2 for _, rates in best]
    assert medians == sorted(medians, reverse=True)


@pytest.mark.parametrize("task", list(Task))
def test_the_model_that_peers_get_answers_like_the_service(tmp_path, task):
    """As many labels, over the same thresholds; one image alone, or among others."""
    folder = make_bundle(tmp_path, task=task)
    model = Model.load(folder, precision="fp32", threads=1)
    classifier = Classifier.load(folder, device="cpu")

    alone = [model.classify(image) for image in IMAGES]

    for image, answer in zip(IMAGES, alone, strict=True):
        expected = classifier.classify(image).predictions
        found = answer["predictions"]
        assert [p["label"] for p in found] == [p.label for p in expected]
        assert [p["score"] for p in found] == pytest.approx([p.score for p in expected])
    assert [len(a["predictions"]) for a in alone] == [
        len(a["predictions"]) for a in model.classify_many(IMAGES)
    ]
