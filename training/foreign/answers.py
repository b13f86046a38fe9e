"""What the user says → **answers**: options, presets, label files."""

import csv
import io
import json
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError

from classifier.manifest import (
    MAX_LABELS,
    Interpolation,
    Label,
    Resize,
    Task,
    describe_problems,
)
from training.errors import AnswerError

MAX_LABEL_BYTES = 16 * 2**20
MAX_DIGITS = 9  # Python reads no number of thousands of them
KNOWN_LABELS = {"imagenet": Path(__file__).parents[1] / "labels" / "imagenet.csv"}


class Preset(NamedTuple):
    """How a library prepares images; see `Answers` for the fields."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: str | None


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PRESETS = {
    # torchvision.transforms.Normalize, as all its classification weights use it
    "torchvision": Preset(1, IMAGENET_MEAN, IMAGENET_STD, "rgb"),
    # timm's default; a weight's own config says whether others are meant
    "timm": Preset(1, IMAGENET_MEAN, IMAGENET_STD, "rgb"),
    # Rescaling(1 / 255)
    "keras-0..1": Preset(1, (0.0,), (1.0,), None),
    # preprocess_input of mode "tf": MobileNet, Inception, Xception, NASNet
    "keras--1..1": Preset(255, (127.5,), (127.5,), None),
    # preprocess_input of mode "caffe": VGG, ResNet
    "keras-caffe": Preset(255, (103.939, 116.779, 123.68), (1.0,), "bgr"),
    # normalization inside the graph: EfficientNet, MobileNetV3
    "keras-0..255": Preset(255, (0.0,), (1.0,), None),
}


@dataclass(frozen=True)
class Answers:
    """What the user says; None is not said.

    x = (pixel · scale / 255 - mean) / std, with mean and std in the order in which the
    network reads the channels, one number for all or one a channel.
    """

    labels: tuple[Label, ...] | None = None
    task: str | None = None
    layout: str | None = None  # NCHW or NHWC
    size: tuple[int, int] | None = None  # H, W
    scale: float | None = None  # what white is before mean and std: 1 or 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    color: str | None = None  # rgb, bgr or gray
    resize: str | None = None  # crop, squash or pad
    short_side: int | None = None
    interpolation: str | None = None
    background: tuple[int, int, int] | None = None
    output: str | None = None  # logits or probabilities
    output_name: str | None = None
    threshold: tuple[float, ...] | None = None
    top_k: int | None = None


def parse_answers(said: Mapping[str, str]) -> Answers:
    """Options as typed, by the names of `Answers` and `preset` → answers.

    A preset's values hold where the user has said nothing else.

    Raises:
        AnswerError: naming the option that cannot be read.
    """
    values: dict[str, Any] = {}
    if "preset" in said:
        preset = _choice(*PRESETS)(said["preset"], "preset")
        values |= {k: v for k, v in PRESETS[preset]._asdict().items() if v is not None}
    for name, text in said.items():
        if name != "preset":
            values[name] = PARSERS[name](text.strip(), name)
    return Answers(**values)


def _choice(*choices: str) -> Callable[[str, str], str]:
    """One of some words, in any case."""

    def parse(text: str, name: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise AnswerError(
            f"{name} is {text!r}; it must be one of: {', '.join(choices)}"
        )

    return parse


def _numbers(text: str, name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise AnswerError(f"{name} is {text!r}; numbers and commas are read") from error
    if not all(math.isfinite(number) for number in numbers):
        raise AnswerError(f"{name} is {text!r}; every number must be finite")
    return numbers


def _number(text: str, name: str) -> float:
    numbers = _numbers(text, name)
    if len(numbers) != 1:
        raise AnswerError(f"{name} is {text!r}; one number is needed")
    return numbers[0]


def _integer(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) < 1:
        raise AnswerError(
            f"{name} is {reprlib.repr(text)}; a whole number from 1 on is needed, of "
            f"at most {MAX_DIGITS} digits"
        )
    return int(text)


def _size(text: str, name: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(map(str.isdecimal, sides)):  # noqa: PLR2004  H and W
        raise AnswerError(
            f"{name} is {reprlib.repr(text)}; HxW, or one number for both, is needed"
        )
    return _integer(sides[0], name), _integer(sides[-1], name)


def _background(text: str, name: str) -> tuple[int, int, int]:
    match [int(n) if n == int(n) else None for n in _numbers(text, name)]:
        case [int(red), int(green), int(blue)]:
            return red, green, blue
    raise AnswerError(f"{name} is {text!r}; three numbers R,G,B are needed")


def _thresholds(text: str, name: str) -> tuple[float, ...]:
    numbers = _numbers(text, name)
    if not all(0 <= number <= 1 for number in numbers):
        raise AnswerError(f"{name} is {text!r}; thresholds are scores from 0 to 1")
    return numbers


PARSERS: dict[str, Callable[[str, str], Any]] = {
    "labels": lambda text, _: read_labels(text),
    "task": _choice(*Task),
    "layout": _choice("NCHW", "NHWC"),
    "size": _size,
    "scale": _number,
    "mean": _numbers,
    "std": _numbers,
    "color": _choice("rgb", "bgr", "gray"),
    "resize": _choice(*get_args(Resize)),
    "short_side": _integer,
    "interpolation": _choice(*get_args(Interpolation)),
    "background": _background,
    "output": _choice("logits", "probabilities"),
    "output_name": lambda text, _: text,
    "threshold": _thresholds,
    "top_k": _integer,
}


def read_labels(source: str) -> tuple[Label, ...]:
    """The labels in the order of the network's outputs.

    Takes `imagenet`, a text file with a name a line, a CSV file with the columns `id`
    and `name` (and `group`), or JSON: a list of names, or Keras's
    {"0": ["id", "name"], …}.

    Raises:
        AnswerError: missing, too large, or none of these: with the line or the label.
    """
    path = KNOWN_LABELS.get(source, Path(source))
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise AnswerError(f"{path} has more than {MAX_LABEL_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnswerError(f"cannot read labels from {path}: {error}") from error
    readers = {".csv": _from_csv, ".json": _from_json}
    try:
        rows = readers.get(path.suffix.lower(), _from_lines)(text)
        # one too many says enough: their number has to be the network's
        labels = tuple(_label(*row) for row in islice(rows, MAX_LABELS + 1))
    except (ValueError, RecursionError, csv.Error) as error:
        raise AnswerError(f"cannot read labels from {path}: {error}") from error
    if not labels:
        raise AnswerError(f"{path} has no labels")
    ids = Counter(label.id for label in labels)
    twice = next((label_id for label_id, n in ids.items() if n > 1), None)
    if twice is not None:
        raise AnswerError(
            f"{path} has {twice!r} twice; use a CSV file with columns id and name"
        )
    return labels


Row = tuple[str, str, str, str | None]  # place in the file, id, name, group


def _label(place: str, label_id: str, name: str, group: str | None) -> Label:
    label_id, name, group = label_id.strip(), name.strip(), (group or "").strip()
    try:
        return Label(id=label_id, name=name, group=group or None)
    except ValidationError as error:
        raise ValueError(f"{place}: {describe_problems(error)}") from error


def _from_lines(text: str) -> Iterator[Row]:
    # `splitlines` would also part names at a form feed, or at U+2028 from a website
    begun = False
    for number, line in enumerate(text.rstrip().split("\n"), 1):
        if name := line.strip():
            begun = True
            yield f"line {number}", name, name, None
        elif begun:  # above the first name it is nobody's
            raise ValueError(f"line {number} is empty; each line is a name")


def _from_csv(text: str) -> Iterator[Row]:
    table = csv.DictReader(io.StringIO(text))
    columns = table.fieldnames or ()
    if "name" not in columns:
        raise ValueError(
            f"its columns are {', '.join(map(repr, columns)) or 'none'}; `name` is "
            "needed, and `id` and `group` are read, by the first line"
        )
    for name in ("id", "name", "group"):  # of two the last would hide the first
        if columns.count(name) > 1:
            raise ValueError(f"it has the column {name!r} twice; take one of them out")
    for row in table:
        place = f"line {table.line_num}"
        if not row["name"]:
            raise ValueError(f"{place} has no name")
        if None in row:  # what is left over; a name would be cut at its comma
            raise ValueError(
                f"{place} has {len(columns) + len(row[None])} values for "
                f"{len(columns)} columns; a comma in a name needs quotes around it"
            )
        label_id = row.get("id") or row["name"]
        yield place, label_id, row["name"], row.get("group")


def _from_json(text: str) -> Iterator[Row]:
    found = json.loads(text, object_pairs_hook=_of_unique_keys)
    if isinstance(found, dict):
        keys = [str(index) for index in range(len(found))]
        missing = next((key for key in keys if key not in found), None)
        if missing is not None:
            raise ValueError(
                f'it has no "{missing}"; {len(found)} labels are numbered from "0" to '
                f'"{len(found) - 1}"'
            )
        found = [found[key] for key in keys]
    if not isinstance(found, list):
        raise ValueError('it is neither a list of names nor {"0": ["id", "name"], …}')
    return (_from_item(index, item) for index, item in enumerate(found))


def _of_unique_keys(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which Python would keep the last of two equal keys."""
    keys = Counter(key for key, _ in members)
    twice = next((key for key, n in keys.items() if n > 1), None)
    if twice is not None:
        raise ValueError(f"it has the key {reprlib.repr(twice)} twice")
    return dict(members)


def _from_item(index: int, item: object) -> Row:
    match item:
        case str(name):
            return f"label {index}", name, name, None
        case [str(label_id), str(name)]:
            return f"label {index}", label_id, name, None
    said = reprlib.repr(item)
    raise ValueError(f'label {index} is {said}; "name" or ["id", "name"] is needed')
