"""Answers are what the documented model would serialize."""

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from classifier.decode import ImageInfo
from classifier.explanation import Explanation
from classifier.manifest import Manifest, Task
from classifier.postprocess import Answer, GroupScore, Prediction
from service import shapes
from service.answers import write_answer
from tests.synthetic import manifest_fields

scores = st.floats(0, 1, width=32)
texts = st.text(min_size=1, max_size=40).map(
    lambda text: text.encode(errors="replace").decode()
)
# What a label may hold: no control characters.
names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)


def bundle(task: Task, names: list[str]) -> Manifest:
    """A manifest whose labels have those names, two groups of them."""
    fields = manifest_fields("any", task, classes=len(names))
    fields["labels"] = [
        {"id": f"{i}-{name}", "name": name, "group": names[i % 2]}
        for i, name in enumerate(names)
    ]
    return Manifest.model_validate_json(json.dumps(fields))


@st.composite
def answers(draw: st.DrawFn) -> tuple[Manifest, Answer]:
    """Any answer of any task, over labels with any characters that they may have."""
    task = draw(st.sampled_from(list(Task)))
    count = 2 if task is Task.BINARY else draw(st.integers(2, 6))
    manifest = bundle(
        task, draw(st.lists(names, min_size=count, max_size=count, unique=True))
    )
    chosen = draw(st.lists(st.integers(0, count - 1), unique=True))
    with_threshold = task in (Task.BINARY, Task.MULTILABEL)
    predictions = tuple(
        Prediction(
            manifest.labels[index].name,
            index,
            manifest.labels[index].id,
            draw(scores),
            draw(scores) if with_threshold else None,
        )
        for index in chosen
    )
    return manifest, Answer(
        task=task,
        predictions=predictions,
        decision=manifest.labels[1].name if task is Task.BINARY else None,
        abstained=draw(st.booleans()),
        groups=(GroupScore(manifest.labels[0].group or "", draw(scores)),)
        if task is Task.FINE_GRAINED
        else None,
    )


explanations = st.builds(
    Explanation,
    index=st.integers(0, 999),
    label=texts,
    grid=st.lists(st.lists(scores, min_size=1).map(tuple), min_size=1).map(tuple),
    region=st.tuples(*[st.floats(-9, 9)] * 4),
)


@given(
    answers(),
    st.integers(1, 65535),
    st.lists(texts, max_size=2),
    st.none() | explanations,
)
def test_an_answer_is_its_documented_shape(case, width, warnings, explanation):
    """Whatever the labels are called and however small the scores."""
    manifest, answer = case
    image = ImageInfo(width, 7, "PNG")

    written = write_answer(
        manifest,
        answer,
        image,
        tuple(warnings),
        request_id="id/0",
        explanation=explanation,
    )

    model = shapes.Answer(
        id="id/0",
        model=shapes.ModelReference(name=manifest.name, version=manifest.version),
        task=manifest.task,
        image=shapes.Image(width=width, height=7, format="PNG"),
        predictions=[
            shapes.Prediction(
                label=p.label,
                index=p.index,
                id=p.id,
                score=p.score,
                threshold=p.threshold,
            )
            for p in answer.predictions
        ],
        decision=answer.decision,
        abstained=True if answer.abstained else None,
        groups=None
        if answer.groups is None
        else [shapes.Group(group=g.group, score=g.score) for g in answer.groups],
        explanation=explanation and shapes.Explanation(**asdict(explanation)),
        warnings=warnings,
    )
    assert json.loads(written) == json.loads(model.model_dump_json(exclude_none=True))
    assert list(json.loads(written)) == list(
        model.model_dump(mode="json", exclude_none=True)
    )
