"""findings + answers → **facts**, or the questions that are still open.

Nothing that changes a prediction is guessed: a network that expects BGR between -1 and
1 gives plausible nonsense for RGB between 0 and 1. What the graph shows beyond doubt is
taken from it; an answer that contradicts it is an error; the rest is asked.
"""

from dataclasses import dataclass
from typing import NamedTuple

from pydantic import ValidationError

from classifier.manifest import Label, PreprocessSpec, Task, describe_problems
from training.errors import AnswerError
from training.foreign.answers import Answers
from training.foreign.findings import Findings, Output
from training.foreign.questions import Known, MissingFactsError, open_questions

WHITE = (255, 255, 255)


class Normalization(NamedTuple):
    """x = (pixel · white / 255 - mean) / std, channels as the network reads them."""

    white: float
    mean: tuple[float, ...]  # C
    std: tuple[float, ...]  # C


@dataclass(frozen=True)
class Facts:
    """All that wrapping a graph needs to know."""

    input: str
    dtype: str
    layout: str
    reverse: bool  # the network reads BGR
    normalization: Normalization | None  # None: it eats raw uint8
    output: str
    scores: str  # what that output holds: logits, softmax or sigmoid
    shown: bool  # by the graph, and not only said
    cut: bool  # the activation is the graph's last node and can be taken off
    task: Task
    classes: int  # K as the foreign graph has it
    labels: tuple[Label, ...]
    thresholds: tuple[float, ...] | None
    top_k: int
    spec: PreprocessSpec

    @property
    def logits(self) -> int:
        """K as the bundle has it: 1 for binary."""
        return self.task.logits(self.classes)


def settle(findings: Findings, answers: Answers) -> Facts:
    """Put findings and answers together.

    Raises:
        MissingFactsError: with every question that is still open.
        AnswerError: an answer contradicts the graph or another answer.
    """
    questions = open_questions(findings, answers)
    if questions:
        raise MissingFactsError(questions)
    known = Known(findings, answers)
    output, task, labels = known.output, known.task, answers.labels or ()
    assert output is not None and task is not None  # noqa: S101,PT018  asked
    classes = output.classes or len(labels)
    check_task(task, classes, output, labels)
    scores = known.scores
    if scores == "probabilities":
        scores = "sigmoid" if classes == 1 or task is Task.MULTILABEL else "softmax"
    return Facts(
        input=findings.input,
        dtype=findings.dtype,
        layout=known.layout or "",
        reverse=known.color == "bgr",
        normalization=_normalization(known),
        output=output.name,
        scores=scores or "",
        shown=output.logits or output.activation is not None,
        cut=output.activation is not None,
        task=task,
        classes=classes,
        labels=labels,
        thresholds=_thresholds(task, classes, answers.threshold),
        top_k=answers.top_k or min(5, len(labels)),
        spec=_spec(known),
    )


def check_task(
    task: Task, classes: int, output: Output, labels: tuple[Label, ...]
) -> None:
    """Raise AnswerError where task, outputs and labels do not go together."""
    wanted = 2 if task is Task.BINARY else classes
    if task is Task.BINARY and classes > 2:  # noqa: PLR2004  negative, positive
        raise AnswerError(f"a binary network has 1 or 2 scores; this one has {classes}")
    if len(labels) != wanted:
        raise AnswerError(
            f"{len(labels)} labels were given; {task} with {classes} scores needs "
            f"{wanted}" + (" (negative, positive)" if task is Task.BINARY else "")
        )
    one_of_many = task.activation == "softmax"
    fits = {
        None: not (output.log_softmax and task is Task.MULTILABEL),
        "softmax": classes > 1 and task is not Task.MULTILABEL,
        "sigmoid": classes == 1 or task is Task.MULTILABEL,
    }
    if not fits[output.activation] or (one_of_many and classes == 1):
        linear = (
            "the logarithm of a softmax" if output.log_softmax else "a linear layer"
        )
        raise AnswerError(
            f"the graph ends in {output.activation or linear} over {classes} "
            f"scores, which does not go with the task {task}"
        )
    ungrouped = [label.id for label in labels if label.group is None]
    if task is Task.FINE_GRAINED and ungrouped:
        raise AnswerError(
            f"label {ungrouped[0]!r} has no group; fine-grained labels need a CSV file "
            "with the columns id, name and group"
        )


def _normalization(known: Known) -> Normalization | None:
    """None for uint8; one number for all channels is repeated."""
    answers, channels = known.answers, known.channels
    if known.findings.dtype == "uint8":
        return None
    white, mean, std = answers.scale, answers.mean, answers.std
    assert white is not None and mean is not None and std is not None  # noqa: S101,PT018
    if white not in (1, 255):
        raise AnswerError(f"scale is {white}; white must become 1 or 255")
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise AnswerError(
                f"{name} has {len(values)} numbers; {_one_or(channels)} needed"
            )
    if not all(s > 0 for s in std):
        raise AnswerError(f"std is {std}; every number must be above 0")
    repeat = channels // len(mean), channels // len(std)
    return Normalization(float(white), mean * repeat[0], std * repeat[1])


def _thresholds(
    task: Task, classes: int, said: tuple[float, ...] | None
) -> tuple[float, ...] | None:
    """One a label for multi-label, one for binary, none else."""
    if task.activation == "softmax":
        if said is not None:
            raise AnswerError(f"a threshold was given; {task} has none")
        return None
    assert said is not None  # noqa: S101  asked
    wanted = task.logits(classes)
    if len(said) not in (1, wanted):
        raise AnswerError(
            f"{len(said)} thresholds were given; for {task} {_one_or(wanted)} needed"
        )
    return said if len(said) == wanted else said * wanted


def _one_or(count: int) -> str:
    """How many numbers may be given, with the verb."""
    return "1 is" if count == 1 else f"1 or {count} are"


def _spec(known: Known) -> PreprocessSpec:
    answers = known.answers
    height, width = known.size or (0, 0)
    try:
        return PreprocessSpec(
            height=height,
            width=width,
            color="gray" if known.color == "gray" else "rgb",
            resize=answers.resize,  # type: ignore[arg-type]  # checked by pydantic
            short_side=answers.short_side,
            interpolation=answers.interpolation,  # type: ignore[arg-type]
            background=answers.background or WHITE,
        )
    except ValidationError as error:
        problems = describe_problems(error)
        raise AnswerError(f"the preprocessing is not possible: {problems}") from error
