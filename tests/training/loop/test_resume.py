"""A run that is killed and called again ends with the same weights, to the bit."""

import subprocess
import sys

import pytest
import torch

from tests.training.loop.runs import (
    one_thread,
    run,
    train_command,
    write_config,
    write_digits,
)
from training.loop.checkpoint import read_checkpoint

STEPS_PER_EPOCH = 15  # 300 images in batches of 20
EACH_STEP = ("--set", "train.checkpoint_minutes=1e-6")


@pytest.fixture
def root(tmp_path):
    """Digits and a config."""
    write_config(tmp_path)
    return write_digits(tmp_path)


def killed_in_second_epoch(command, repository):
    """Start it, read until the first epoch is told of, SIGKILL at once."""
    with subprocess.Popen(
        command, cwd=repository, env=one_thread(), stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.startswith("step"):
                process.kill()
                break
        process.wait()


@pytest.mark.slow
def test_after_a_kill_in_the_middle_of_an_epoch_the_weights_are_the_same(
    root, repository
):
    """With augmentation, mixup, two optimizers, a warm-up and averaged weights."""
    whole = run(train_command(root, root / "whole", *EACH_STEP), repository)
    assert whole.returncode == 0, whole.stderr

    command = train_command(root, root / "killed", *EACH_STEP)
    killed_in_second_epoch(command, repository)
    step = read_checkpoint(root / "killed" / "last.pt")["step"]
    assert 0 < step < 4 * STEPS_PER_EPOCH
    assert not (root / "killed" / "final.pt").exists()
    again = run(command, repository)

    assert f"from step {step}" in again.stderr
    kept, expected = (
        read_checkpoint(root / name / "final.pt")["network"]
        for name in ("killed", "whole")
    )
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], expected[name]) for name in kept)


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one(root, repository):
    """Each has half of every batch, and gradients are averaged."""
    plain = ("--set", "augment={}", "--set", "train.epochs=1")
    alone = run(train_command(root, root / "alone", *plain), repository)
    assert alone.returncode == 0, alone.stderr
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = train_command(root, root / "both", *plain)
    both = run([*torchrun, "--nproc-per-node", "2", *command[1:]], repository)
    assert both.returncode == 0, both.stderr

    mine, ours = (
        read_checkpoint(root / name / "final.pt")["network"]
        for name in ("alone", "both")
    )
    for name in mine:
        assert torch.allclose(mine[name], ours[name], atol=2e-3), name
