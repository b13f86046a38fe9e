"""findings + answers → **what is still to be said**, all of it at once.

Each question names its option, the choices, and why the graph cannot answer it.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar, get_args

from classifier.manifest import Interpolation, Resize, Task
from training.errors import AnswerError
from training.foreign.answers import PRESETS, Answers
from training.foreign.findings import Findings, Output

T = TypeVar("T")

TWO = 2  # scores: a binary network with a score for each side, or two classes


class Question(NamedTuple):
    """Something that has to be said: the option, its choices, and why."""

    option: str
    choices: str
    why: str


class MissingFactsError(AnswerError):
    """Facts that nobody has given yet; `questions` lists all of them."""

    def __init__(self, questions: list[Question]) -> None:
        self.questions = questions
        lines = [f"  {q.option} {q.choices}\n      {q.why}" for q in questions]
        super().__init__("still needed:\n" + "\n".join(lines))


class Known:
    """Each fact as far as findings and answers give it, else None.

    Raises:
        AnswerError: from any property, where an answer contradicts the graph.
    """

    def __init__(self, findings: Findings, answers: Answers) -> None:
        self.findings, self.answers = findings, answers

    @property
    def layout(self) -> str | None:
        """NCHW or NHWC."""
        return agreed("layout", self.findings.layout, self.answers.layout)

    @property
    def channels(self) -> int:
        """C: of the graph, else by the color; 3 as long as neither is known."""
        axis = {"NCHW": 1, "NHWC": 3}.get(self.layout or "")
        found = None if axis is None else self.findings.dims[axis]
        said = {"gray": 1, "rgb": 3, "bgr": 3}.get(self.answers.color or "")
        return agreed("number of channels", found, said) or 3

    @property
    def size(self) -> tuple[int, int] | None:
        """H and W."""
        axes = {"NCHW": (2, 3), "NHWC": (1, 2)}.get(self.layout or "")
        if axes is None:
            return self.answers.size
        height, width = (self.findings.dims[axis] for axis in axes)
        said_height, said_width = self.answers.size or (None, None)
        height = agreed("height", height, said_height)
        width = agreed("width", width, said_width)
        return (height, width) if height and width else None

    @property
    def color(self) -> str | None:
        """rgb, bgr or gray."""
        return "gray" if self.channels == 1 else self.answers.color

    @property
    def output(self) -> Output | None:
        """The output with the scores."""
        outputs = {output.name: output for output in self.findings.outputs}
        name = self.answers.output_name
        if name is None:
            return self.findings.outputs[0] if len(outputs) == 1 else None
        if name not in outputs:
            raise AnswerError(f"no output {name!r}; there are: {', '.join(outputs)}")
        return outputs[name]

    @property
    def scores(self) -> str | None:
        """logits, softmax or sigmoid; probabilities where the activation is hidden."""
        output, said = self.output, self.answers.output
        if output is None:
            return None
        found = "probabilities" if output.activation else None
        found = "logits" if output.logits else found
        kind = agreed("output", found, said)
        return output.activation or kind

    @property
    def task(self) -> Task | None:
        """The task, where the number of scores and the activation leave one."""
        said = None if self.answers.task is None else Task(self.answers.task)
        output = self.output
        if said is not None or output is None:
            return said
        if output.classes == 1:
            return Task.BINARY
        many = output.classes is not None and output.classes > TWO
        if many and output.activation == "sigmoid":
            return Task.MULTILABEL
        if many and output.activation == "softmax":
            groups = {label.group for label in self.answers.labels or ()}
            return Task.MULTICLASS if groups <= {None} else Task.FINE_GRAINED
        return None


def agreed(what: str, found: T | None, said: T | None) -> T | None:
    """What the graph shows or the user says; both must say the same."""
    if found is not None and said is not None and found != said:
        raise AnswerError(f"{what}: {said} was given, but the graph shows {found}")
    return found if found is not None else said


def open_questions(findings: Findings, answers: Answers) -> list[Question]:
    """Every fact that nobody has given yet, in the order of the flow."""
    known = Known(findings, answers)
    return [
        *_about_input(known),
        *_about_normalization(known),
        *_about_resize(answers),
        *_about_output(known),
    ]


def _about_input(known: Known) -> Iterator[Question]:
    shape = known.findings.shape
    if known.layout is None:
        yield Question(
            "--layout", "NCHW|NHWC", f"the input {shape} does not say where C is"
        )
    if known.size is None:
        yield Question("--size", "HxW", f"the input {shape} leaves the size open")
    if known.color is None:
        yield Question(
            "--color",
            "rgb|bgr" if known.layout else "rgb|bgr|gray",
            "the order of channels the network was trained with leaves no trace",
        )


def _about_normalization(known: Known) -> Iterator[Question]:
    answers = known.answers
    values = {"--scale": answers.scale, "--mean": answers.mean, "--std": answers.std}
    if known.findings.dtype == "uint8":
        said = [option for option, value in values.items() if value is not None]
        if said:
            raise AnswerError(
                f"{', '.join(said)} was given, but the graph takes uint8: "
                "it normalizes by itself"
            )
        return
    choices = {"--scale": "1|255", "--mean": "M or R,G,B", "--std": "S or R,G,B"}
    why = {
        "--scale": "what white is before mean and std are applied",
        "--mean": "what was subtracted in training (0 if nothing)",
        "--std": "what was divided by in training (1 if nothing)",
    }
    presets = f"; or --preset {'|'.join(PRESETS)}"
    for option, value in values.items():
        if value is None:
            yield Question(option, choices[option], why[option] + presets)
            presets = ""


def _about_resize(answers: Answers) -> Iterator[Question]:
    if answers.resize is None:
        yield Question(
            "--resize",
            "|".join(get_args(Resize)),
            "how images were brought to the network's size in training",
        )
    if answers.resize == "crop" and answers.short_side is None:
        yield Question(
            "--short-side",
            "PIXELS",
            "to what the short side was scaled before the center was cropped",
        )
    if answers.resize == "pad" and answers.background is None:
        yield Question("--background", "R,G,B", "the color of the padding")
    if answers.interpolation is None:
        yield Question(
            "--interpolation",
            "|".join(get_args(Interpolation)),
            "how images were scaled in training",
        )


def _about_output(known: Known) -> Iterator[Question]:
    answers, outputs = known.answers, known.findings.outputs
    if known.output is None:
        names = "|".join(output.name for output in outputs)
        several = "; ".join(output.described for output in outputs)
        yield Question("--output-name", names, f"several may be the scores: {several}")
        return
    if known.scores is None:
        yield Question(
            "--output",
            "logits|probabilities",
            f"{known.output.described} may be either",
        )
    task = known.task
    if task is None:
        choices = "binary|multiclass" if known.output.classes == TWO else "multiclass"
        yield Question(
            "--task",
            f"{choices}|multilabel|fine-grained",
            f"{known.output.described} does not say whether labels exclude one another",
        )
    decides = task is not None and task.activation == "sigmoid"
    if decides and answers.threshold is None:
        yield Question(
            "--threshold", "T or T,T,…", "the score from which a label counts"
        )
    if answers.labels is None:
        count = 2 if task is Task.BINARY else known.output.classes
        order = ", negative first" if task is Task.BINARY else ""
        why = f"the names of the {count or '?'} labels{order}"
        yield Question("--labels", "FILE|imagenet", why)
