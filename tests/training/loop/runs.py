"""A small real training that the tests of the loop start: LeNet-5 on drawn digits."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

CONFIG = """
name = "tiny"
task = "multiclass"

[data]
path = "digits"
height = 28
width = 28
color = "gray"
mean = [0.2]
std = [0.3]
validation = 20

[network]
name = "lenet5"

[[optimizer]]
parameters = "filters"
kind = "muon"
learning_rate = 0.02

[[optimizer]]
kind = "adamw"
learning_rate = 3e-3

[schedule]
shape = "cosine"
warmup = 0.1

[augment]
rotate = 10.0
zoom = 0.1
cutout = 4
mixup = 0.2

[train]
epochs = 4
batch_size = 20
label_smoothing = 0.1
ema = 0.9
precision = "fp32"
"""


def write_digits(root: Path, *, train: int = 320, test: int = 40) -> Path:
    """IDX files of ten patterns with noise, below `root/digits`."""
    folder = root / "digits"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 200, (10, 7, 7)).repeat(4, 1).repeat(4, 2)
    for prefix, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = np.clip(
            patterns[labels] + rng.integers(0, 56, (count, 28, 28)), 0, 255
        )
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            path = folder / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))
    return root


def write_config(root: Path, text: str = CONFIG) -> Path:
    """The config as a file."""
    path = root / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return path


def train_command(root: Path, out: Path, *options: str) -> list[str]:
    """`linnaeus train` on the digits below `root`."""
    config = str(root / "tiny.toml")
    command = [sys.executable, "-m", "cli", "train", config, "--data", str(root)]
    return [*command, "--out", str(out), "--device", "cpu", *options]


def run(command: list[str], repository: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command,
        cwd=repository,
        env=one_thread(),
        capture_output=True,
        text=True,
        check=False,
    )


def one_thread() -> dict[str, str]:
    """The environment, with one thread a process: the same sums in the same order."""
    return os.environ | {"OMP_NUM_THREADS": "1"}
