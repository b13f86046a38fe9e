"""`linnaeus import`: a stranger's ONNX file → **bundle**."""

import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.errors import AnswerError, TrainingError

if TYPE_CHECKING:
    from training.foreign.bundle import Origin
    from training.foreign.questions import Question

NOT_STATED = "not stated"
EXISTING = typer.Argument(help="The .onnx file.", show_default=False)
Text = str | None


def option(text: str) -> typer.models.OptionInfo:
    """An option without a default: what changes a prediction is said or asked."""
    found: typer.models.OptionInfo = typer.Option(help=text, show_default=False)
    return found


def command(  # one parameter an option: the list is the interface
    context: typer.Context,
    file: Annotated[Path, EXISTING],
    labels: Annotated[
        Text, option("In the order of the outputs: .txt, .csv, .json, or imagenet.")
    ] = None,
    task: Annotated[
        Text, option("binary, multiclass, multilabel or fine-grained.")
    ] = None,
    preset: Annotated[
        Text, option("Fills scale, mean, std, color: torchvision, keras-0..1, …")
    ] = None,
    scale: Annotated[Text, option("What white is before mean and std: 1, 255.")] = None,
    mean: Annotated[Text, option("In the network's order: M or R,G,B.")] = None,
    std: Annotated[Text, option("In the network's order: S or R,G,B.")] = None,
    color: Annotated[Text, option("rgb, bgr or gray.")] = None,
    layout: Annotated[Text, option("NCHW or NHWC.")] = None,
    size: Annotated[Text, option("HxW of the network's input.")] = None,
    resize: Annotated[Text, option("crop, squash or pad.")] = None,
    short_side: Annotated[Text, option("Pixels, for --resize crop.")] = None,
    interpolation: Annotated[
        Text, option("nearest, box, bilinear, bicubic or lanczos.")
    ] = None,
    background: Annotated[Text, option("R,G,B behind padding.")] = None,
    output: Annotated[Text, option("logits or probabilities.")] = None,
    output_name: Annotated[Text, option("Which of several outputs.")] = None,
    threshold: Annotated[Text, option("Score from which a label counts.")] = None,
    top_k: Annotated[Text, option("Labels in an answer; default 5.")] = None,
    samples: Annotated[
        list[Path] | None,
        typer.Option(help="Photos or folders of them, for proof and golden."),
    ] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Prove on made-up images instead.")
    ] = False,
    name: Annotated[Text, option("Of the bundle; default: the file's name.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    license: Annotated[str, typer.Option(help="Of the weights.")] = NOT_STATED,
    source: Annotated[str, typer.Option(help="Where they come from.")] = NOT_STATED,
    models: Annotated[
        Path, typer.Option(envvar="LINNAEUS_MODELS", help="Folder of bundles.")
    ] = Path("models"),
) -> None:
    """Make a bundle of a foreign ONNX file (torchvision, timm, Keras … exports).

    The graph is wrapped so that it takes pixels and returns logits, and proven to agree
    with the original. What the file does not say is asked, never guessed.
    """
    from classifier.errors import ClassifierError  # noqa: PLC0415  slow to load
    from training.bundling.draft import check_name  # noqa: PLC0415
    from training.commands.progress import say_steps  # noqa: PLC0415
    from training.files import try_folder  # noqa: PLC0415
    from training.foreign.answers import PARSERS  # noqa: PLC0415
    from training.foreign.bundle import Origin  # noqa: PLC0415

    say_steps()
    said = {key: context.params[key] for key in ("preset", *PARSERS)}
    given = {key: text for key, text in said.items() if text is not None}
    origin = Origin(
        file=file,
        name=name or slug(file.stem),
        description=description or f"Imported from {file.name}.",
        license=license or NOT_STATED,
        source=source or NOT_STATED,
        command=spelled(context, given),
    )
    if samples and synthetic:
        raise AnswerError(
            "--samples and --synthetic were both given; photos prove more, so leave "
            "--synthetic out"
        )
    photos = None if synthetic else list(find_images(samples or ()))
    try:
        check_name(origin.name)
        try_folder(models / origin.name)
        folder = _import(context, origin, given, photos, models)
    except (ClassifierError, TrainingError) as error:
        raise TrainingError(f"{file.name or file}: {error}") from error
    typer.echo(f"wrote {folder}")


def _import(
    context: typer.Context,
    origin: "Origin",
    given: dict[str, str],
    photos: list[Path] | None,
    models: Path,
) -> Path:
    """Import; on a terminal, ask for what is missing and try again."""
    from training.foreign.answers import parse_answers  # noqa: PLC0415
    from training.foreign.bundle import import_graph  # noqa: PLC0415
    from training.foreign.questions import MissingFactsError  # noqa: PLC0415
    from training.foreign.source import read_graph  # noqa: PLC0415

    foreign = read_graph(origin.file)
    while True:
        try:
            answers = parse_answers(given)
            return import_graph(foreign, answers, origin, samples=photos, models=models)
        except MissingFactsError as missing:
            if not (sys.stdin.isatty() and sys.stdout.isatty()):
                raise
            given |= {_key(asked): _ask(asked) for asked in missing.questions}
            origin = replace(origin, command=spelled(context, given))


def spelled(context: typer.Context, given: Mapping[str, str]) -> str:
    """The command with every option that was typed or answered."""
    from classifier.texts import as_utf8  # noqa: PLC0415 - slow to load

    values = {**context.params, **given}
    words = ["linnaeus", "import", str(values["file"])]
    for parameter in context.command.params:
        value = values.get(parameter.name or "")
        if parameter.name == "file" or not value or value == parameter.default:
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            words += [parameter.opts[0], *([] if each is True else [str(each)])]
    return as_utf8(shlex.join(words))


def _key(question: "Question") -> str:
    """Its option as a name."""
    return question.option.removeprefix("--").replace("-", "_")


def _ask(question: "Question") -> str:
    """The answer of whoever sits at the terminal, asked until it can be read."""
    from training.foreign.answers import parse_answers  # noqa: PLC0415

    typer.echo(f"\n{question.option}: {question.why}")
    while True:
        try:
            text: str = typer.prompt(question.choices)
        except typer.Abort as end:  # of Ctrl-C and of Ctrl-D alike
            if isinstance(end.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from end
            raise
        try:
            parse_answers({_key(question): text})
        except AnswerError as error:
            typer.secho(str(error), fg="red")
        else:
            return text


def find_images(paths: Iterable[Path]) -> Iterable[Path]:
    """Files as given; of folders the images inside, in the order of their names."""
    from classifier.names import image_files  # noqa: PLC0415 - slow to load

    for path in paths:
        if path.is_dir():
            yield from image_files(path)
        else:
            yield path


def slug(stem: str) -> str:
    """A file's name as a bundle's: lower case, no blanks."""
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:64] or "imported"
