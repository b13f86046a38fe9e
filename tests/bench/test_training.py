"""The comparison of training loops: fair, by turns, and written down."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


@pytest.mark.slow
@pytest.mark.timeout(400)  # two processes that import torch, and their workers
def test_both_loops_train_by_turns_and_the_ratio_is_of_their_pairs(
    color_images, repository, tmp_path
):
    """On a few small images, in processes that end with the command."""
    results = tmp_path / "speed.json"
    command = [sys.executable, "-m", "bench.training", "--data", str(color_images)]
    command += ["--networks", "lenet5", "--batch-size", "8", "--seconds", "0.1"]
    command += ["--rounds", "2", "--json", str(results)]

    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    record = json.loads(results.read_text())
    found = record["networks"]["lenet5"]
    assert found["arithmetic"]["plain"] == "fp32"
    assert found["arithmetic"]["ours"] in ("fp32", "bf16")
    rates = found["images_per_s"]
    assert [len(rates[name]) for name in ("plain", "ours")] == [2, 2]
    assert found["ratios"] == [
        pytest.approx(ours / plain, abs=0.01)  # rounded to hundredths
        for plain, ours in zip(rates["plain"], rates["ours"], strict=True)
    ]
    assert {"commit", "machine", "command"} <= set(record)


@pytest.fixture
def color_images(tmp_path):
    """Forty class-folder images of 32x32."""
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        folder = tmp_path / "data" / "train" / label
        folder.mkdir(parents=True)
        for n in range(20):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.png")
    return tmp_path / "data"
