"""A checkpoint of a run that is damaged, or in the place of the other one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.errors import CheckpointError
from training.loop.checkpoint import read_checkpoint


def test_a_damaged_end_of_a_finished_run_is_written_anew(
    tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    """Its `last.pt` is whole, and the weights come from there."""
    final = tiny() / "final.pt"
    weights = read_checkpoint(final)["network"]
    final.write_bytes(final.read_bytes()[:1000])

    tiny()

    again = read_checkpoint(final)["network"]
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert any("final.pt is damaged" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("kept", "taken_for", "why"),
    [
        ("last.pt", "final.pt", "to go on from, and not that of a fi"),
        ("final.pt", "last.pt", "what a finished run leaves as final"),
    ],
)
def test_the_two_checkpoints_of_a_run_are_told_apart(
    tiny: Callable[..., Path], kept: str, taken_for: str, why: str
):
    """One is not finished, or nothing can go on from it."""
    folder = tiny()
    mistaken = (folder / kept).replace(folder / taken_for).read_bytes()

    with pytest.raises(CheckpointError, match=rf"{taken_for} is .*{why}"):
        tiny()

    assert (folder / taken_for).read_bytes() == mistaken
