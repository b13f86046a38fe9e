"""Small data sets that are learned in a second, laid out as a user would."""

import csv
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.onnx._internal.exporter._registration import ONNXRegistry

COLORS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
SIDE = 32


def colored(name: str, generator: np.random.Generator) -> Image.Image:
    """A noisy square of one color."""
    noise = generator.integers(-40, 40, size=(SIDE, SIDE, 3))
    pixels = np.clip(np.array(COLORS[name]) + noise, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="session", autouse=True)
def one_table_of_operators() -> Iterator[None]:
    """torch parses the source of 500 operators at each export, half of a small one."""
    once = staticmethod(cache(ONNXRegistry.from_torchlib))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ONNXRegistry, "from_torchlib", once)
        yield


@pytest.fixture(scope="session")
def color_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with `colors/SPLIT/LABEL/n.png`: 24 train and 6 test images each."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 6)):
        for name in COLORS:
            folder = root / "colors" / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                colored(name, generator).save(folder / f"{n}.png")
    return root


@pytest.fixture(scope="session")
def halves_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with `halves/labels.csv`: each half of an image has its own color."""
    root = tmp_path_factory.mktemp("table")
    folder = root / "halves"
    folder.mkdir()
    generator = np.random.default_rng(1)
    names = list(COLORS)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "labels", "split"])
        for n in range(72):
            pair = generator.choice(names, size=2)
            image = colored(pair[0], generator)
            right = colored(pair[1], generator).crop((0, 0, SIDE // 2, SIDE))
            image.paste(right, (SIDE // 2, 0))
            image.save(folder / f"{n}.png")
            split = ("train", "train", "validation", "test")[n % 4]
            rows.writerow([f"{n}.png", "|".join(sorted(set(pair))), split])
    return root


CONFIG = """
name = "{name}"
task = "{task}"

[data]
path = "{path}"
height = 32
width = 32
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
validation = 18
{data}

[network]
name = "lenet5"

[[optimizer]]
kind = "adamw"
learning_rate = 3e-3

[train]
epochs = {epochs}
batch_size = 12
precision = "fp32"

[loss]
{loss}

[bundle]
{bundle}
"""


def config_in(folder: Path, name: str, task: str, path: str, **more: str) -> Path:
    """Write a config of a LeNet for one of the data sets above."""
    fields = {"data": "", "loss": "", "bundle": "", "epochs": "6"} | more
    target = folder / f"{name}.toml"
    target.write_text(CONFIG.format(name=name, task=task, path=path, **fields))
    return target


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """The same, in the folder of a test."""
    return partial(config_in, tmp_path)
