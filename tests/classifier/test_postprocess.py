"""logits → answer: probabilities that are some, and the rules of each task."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from classifier.errors import RequestError, SessionError
from classifier.manifest import MAX_LABELS, Manifest, PostprocessSpec, Task
from classifier.postprocess import Answer, Postprocessor, probabilities, top
from tests.synthetic import manifest_fields

logits_of = arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 8)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.floats(-20, 20, width=32),
)
temperatures = st.floats(0.01, 100)
some = settings(max_examples=80, deadline=None)


def spec(activation: str, temperature: float = 1.0) -> PostprocessSpec:
    """How logits become probabilities."""
    return PostprocessSpec(
        activation=activation,  # type: ignore[arg-type]
        temperature=temperature,
        thresholds=None,
        top_k=1,
        abstain_threshold=None,
    )


def rules(task: Task, *, classes: int = 3, **changes: Any) -> Postprocessor:
    """The postprocessing of a bundle of that task."""
    fields = manifest_fields("colors", task, classes=classes)
    fields["postprocess"] |= changes
    return Postprocessor(Manifest.model_validate_json(json.dumps(fields)))


def labels(answer: Answer) -> list[str]:
    """Names, best first."""
    return [prediction.label for prediction in answer.predictions]


def scores(*values: float) -> np.ndarray:
    """Probabilities of one image, float32 [K]."""
    return np.array(values, np.float32)


@some
@given(logits_of, temperatures)
def test_softmax_is_a_distribution(logits, temperature):
    """For any finite logits: exp overflows above 88 and a quotient above 3e38."""
    result = probabilities(logits, spec("softmax", temperature))

    assert result.dtype == np.float32
    assert ((result >= 0) & (result <= 1)).all()
    assert np.allclose(result.sum(axis=1), 1, atol=1e-5)


@some
@given(logits_of, temperatures)
def test_sigmoid_is_a_probability_of_each_label(logits, temperature):
    """And what speaks for a label speaks against its opposite."""
    result = probabilities(logits, spec("sigmoid", temperature))
    opposite = probabilities(-logits, spec("sigmoid", temperature))

    assert result.dtype == np.float32
    assert ((result >= 0) & (result <= 1)).all()
    assert np.allclose(result + opposite, 1, atol=1e-6)


@some
@given(logits_of, temperatures, st.sampled_from(["softmax", "sigmoid"]))
def test_a_larger_logit_never_has_a_smaller_score(logits, temperature, activation):
    """Whatever the temperature: it changes how sure an answer is, not the answer."""
    result = probabilities(logits, spec(activation, temperature))

    order = np.argsort(logits, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(result, order, axis=1)) >= 0).all()


def test_probabilities_are_those_of_the_formula():
    """exp(x / T) / sum exp(x / T), and 1 / (1 + exp(-x / T))."""
    logits = np.array([[1.0, -2.0, 0.5]], np.float32)
    powers = np.exp(logits.astype(np.float64) / 2)

    softmax = probabilities(logits, spec("softmax", 2.0))
    sigmoid = probabilities(logits, spec("sigmoid", 2.0))

    assert softmax == pytest.approx(powers / powers.sum(), rel=1e-6)
    assert sigmoid == pytest.approx(powers / (1 + powers), rel=1e-6)


@some
@given(
    arrays(
        np.float32,
        st.integers(1, 40),
        elements=st.sampled_from([0.0, 0.1, 0.25, 0.5]) | st.floats(0, 1, width=32),
    ),
    st.integers(1, 40),
)
def test_top_is_sorted_by_score_and_then_by_index(values, k):
    """Ties too: the same logits always give the same answer."""
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]

    assert top(values, k) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("task", Task)
def test_logits_that_are_no_numbers_are_refused(task, bad):
    """A NaN would be an answer of sorts, and no JSON."""
    postprocessor = rules(task)
    logits = np.zeros((1, postprocessor.manifest.logits), np.float32)
    logits[0, -1] = bad

    with pytest.raises(SessionError, match="not finite"):
        postprocessor.scores(logits)


def test_binary_decides_for_the_positive_label_from_its_threshold_on():
    """The threshold is inclusive; the score is always that of the positive label."""
    binary = rules(Task.BINARY, thresholds=[0.75])

    yes, no = binary.answer(scores(0.75)), binary.answer(scores(0.7499))

    assert (yes.decision, no.decision) == ("red", "not red")
    [prediction] = no.predictions
    assert (prediction.label, prediction.index, prediction.id) == ("red", 1, "red")
    assert (prediction.threshold, yes.abstained, yes.groups) == (0.75, False, None)


def test_a_threshold_of_ones_own_decides_instead():
    """And is told as the one that decided."""
    answer = rules(Task.BINARY, thresholds=[0.75]).answer(scores(0.5), threshold=0.5)

    assert answer.decision == "red"
    assert answer.predictions[0].threshold == 0.5


def test_multilabel_gives_each_label_over_its_own_threshold():
    """Best first; perhaps none at all."""
    multilabel = rules(Task.MULTILABEL, thresholds=[0.5, 0.25, 0.75])

    answer = multilabel.answer(scores(0.5, 0.625, 0.7))

    assert labels(answer) == ["green", "red"]
    assert [p.threshold for p in answer.predictions] == [0.25, 0.5]
    assert multilabel.answer(scores(0, 0, 0)).predictions == ()
    assert (answer.decision, answer.abstained, answer.groups) == (None, False, None)


def test_multilabel_leaves_no_label_out_for_want_of_places():
    """The manifest's own top_k is for tasks that have one right label."""
    multilabel = rules(Task.MULTILABEL, thresholds=[0.5, 0.5, 0.5], top_k=1)

    assert labels(multilabel.answer(scores(0.75, 0.5, 0.625))) == [
        "red",
        "blue",
        "green",
    ]


def test_multilabel_tells_the_threshold_that_a_label_was_held_to():
    """Its own, or the one that was asked for."""
    multilabel = rules(Task.MULTILABEL, thresholds=[0.5, 0.5, 0.5])
    values = scores(0.75, 0.125, 0.125)

    assert multilabel.answer(values).predictions[0].threshold == 0.5
    assert multilabel.answer(values, threshold=0.25).predictions[0].threshold == 0.25


def test_multilabel_gives_as_many_labels_as_are_asked_for():
    """Then its thresholds only inform, unless one was asked for as well."""
    multilabel = rules(Task.MULTILABEL, thresholds=[0.5, 0.5, 0.5])
    values = scores(0.125, 0.25, 0.75)

    assert labels(multilabel.answer(values, top_k=2)) == ["blue", "green"]
    assert labels(multilabel.answer(values, threshold=0.25)) == ["blue", "green"]
    assert labels(multilabel.answer(values, threshold=0.0)) == ["blue", "green", "red"]
    assert labels(multilabel.answer(values, top_k=1, threshold=0.25)) == ["blue"]
    assert labels(multilabel.answer(values, top_k=3, threshold=0.5)) == ["blue"]


def test_multiclass_gives_the_best_labels():
    """As many as the bundle says, or as are asked for."""
    multiclass = rules(Task.MULTICLASS, top_k=2)
    values = scores(0.25, 0.125, 0.625)

    assert labels(multiclass.answer(values)) == ["blue", "red"]
    assert labels(multiclass.answer(values, top_k=3)) == ["blue", "red", "green"]
    first = multiclass.answer(values).predictions[0]
    assert (first.index, first.score, first.threshold) == (2, 0.625, None)


def test_a_model_abstains_when_its_best_score_is_under_the_threshold():
    """The bundle's or one's own; 0 asks for an answer in any case."""
    careful = rules(Task.MULTICLASS, abstain_threshold=0.5)
    unsure, sure = scores(0.375, 0.375, 0.25), scores(0.5, 0.25, 0.25)

    silent = careful.answer(unsure)

    assert (silent.abstained, silent.predictions) == (True, ())
    assert not careful.answer(sure).abstained
    assert careful.answer(sure, threshold=0.75).abstained
    assert labels(careful.answer(unsure, threshold=0.0))[0] == "red"
    assert not rules(Task.MULTICLASS).answer(unsure).abstained


@pytest.mark.timeout(20)  # each sought among all groups, it would be minutes
def test_as_many_labels_may_have_a_group_as_a_bundle_may_have():
    """Their groups are numbered whenever a bundle is loaded."""
    fields = manifest_fields("colors", Task.FINE_GRAINED)
    fields["labels"] = [
        {"id": f"{n}", "name": f"{n}", "group": f"of {n}"} for n in range(MAX_LABELS)
    ]
    fine = Postprocessor(Manifest.model_validate_json(json.dumps(fields)))

    answer = fine.answer(np.full(MAX_LABELS, 1 / MAX_LABELS, np.float32))

    assert answer.groups is not None
    assert answer.groups[0].score == pytest.approx(1 / MAX_LABELS)


def test_fine_grained_adds_the_sum_of_each_group():
    """Best first, even when the best label is in another group."""
    answer = rules(Task.FINE_GRAINED).answer(scores(0.5, 0.25, 0.25))
    divided = rules(Task.FINE_GRAINED).answer(scores(0.4375, 0.3125, 0.25))

    assert [(g.group, g.score) for g in answer.groups or ()] == [
        ("cold", 0.5),
        ("warm", 0.5),
    ]
    assert labels(divided)[0] == "red"
    assert [(g.group, g.score) for g in divided.groups or ()] == [
        ("cold", 0.5625),
        ("warm", 0.4375),
    ]


def test_there_are_no_more_groups_than_labels_in_an_answer():
    """Of one label, asked for or by the manifest, one group is told."""
    values = scores(0.5, 0.3125, 0.1875)

    asked = rules(Task.FINE_GRAINED).answer(values, top_k=1)
    by_manifest = rules(Task.FINE_GRAINED, top_k=1).answer(values)

    assert asked == by_manifest
    assert [group.group for group in asked.groups or ()] == ["cold"]


@some
@given(
    arrays(np.float32, st.just((1, 12)), elements=st.floats(-20, 20, width=32)),
)
def test_groups_share_what_the_labels_have(logits):
    """Each is a probability, and together they are 1."""
    fine = rules(Task.FINE_GRAINED, classes=12)

    answer = fine.answer(fine.scores(logits)[0])

    assert answer.groups is not None
    assert all(0 <= group.score <= 1 for group in answer.groups)
    assert sum(group.score for group in answer.groups) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"top_k": 0}, r"top_k is 0; for this model 1 to \d are allowed"),
        ({"top_k": 4}, r"top_k is 4; for this model 1 to \d are allowed"),
        ({"threshold": -0.1}, r"threshold is -0\.1; 0 to 1 are allowed"),
        ({"threshold": 1.1}, r"threshold is 1\.1; 0 to 1 are allowed"),
        ({"threshold": float("nan")}, "threshold is nan; 0 to 1 are allowed"),
        ({"top_k": 1.0}, r"top_k is 1\.0; it must be a whole number"),
        ({"top_k": "1"}, "top_k is '1'; it must be a whole number"),
        ({"threshold": "0.5"}, r"threshold is '0\.5'; it must be a number from 0 to 1"),
    ],
)
def test_a_parameter_out_of_range_is_refused(task, asked, message):
    """Naming what was asked for and what is allowed."""
    postprocessor = rules(task)

    with pytest.raises(RequestError, match=message):
        postprocessor.answer(scores(*[0.1] * postprocessor.max_top_k), **asked)


@pytest.mark.parametrize("task", Task)
def test_numbers_of_numpy_are_numbers(task):
    """A threshold may come from an array of them."""
    postprocessor = rules(task)
    some = scores(*[0.3] * postprocessor.max_top_k)

    answer = postprocessor.answer(some, top_k=np.int64(1), threshold=np.float32(0.5))

    assert answer == postprocessor.answer(some, top_k=1, threshold=0.5)


def test_a_binary_answer_has_one_prediction():
    """That of the positive label: two cannot be asked for."""
    with pytest.raises(RequestError, match="top_k is 2; for this model 1 to 1"):
        rules(Task.BINARY).answer(scores(0.5), top_k=2)


@pytest.mark.parametrize("task", Task)
def test_an_answer_is_plain_numbers_and_text(task):
    """No NumPy type may reach a client's JSON."""
    postprocessor = rules(task)
    values = scores(*[0.95] * postprocessor.max_top_k)

    text = json.dumps(dataclasses.asdict(postprocessor.answer(values)))

    assert json.loads(text)["task"] == task
