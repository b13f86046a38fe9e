"""What the user says → **answers**: options and presets."""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from classifier.manifest import Interpolation, Label, Resize, Task
from training.errors import AnswerError
from training.foreign.labels import read_labels

MAX_DIGITS = 9  # Python reads no number of thousands of them


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
