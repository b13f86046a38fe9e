"""A run that is killed and called again ends with the same weights, to the bit."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from typer.testing import CliRunner, Result

from cli import app
from tests.training.loop import locked
from tests.training.loop.runs import (
    one_thread,
    run,
    train_command,
    write_config,
    write_digits,
)
from training.configs.config import read_config
from training.loop.checkpoint import read_checkpoint
from training.loop.distributed import Ranks
from training.loop.lock import alone_in
from training.loop.log import read_log
from training.loop.loop import Outcome, Room, fit
from training.loop.runs import prepare
from training.loop.validation import Validation

STEPS_PER_EPOCH = 15  # 300 images in batches of 20
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--nproc-per-node", "2"),
]
EACH_STEP = ("--set", "train.checkpoint_minutes=1e-6")
AHEAD = ("--set", "train.lookahead=4")
AVERAGED = ("--set", "train.ema_from=0")  # so that there is an average at the kill
SELECTED = ("--set", "selection.proxy='lenet5'", "--set", "train.batch_size=10")
BY_SCORE = ("--set", "train.keep='best'", "--set", "train.patience=2")


@pytest.fixture
def root(tmp_path):
    """Digits and a config."""
    write_config(tmp_path)
    return write_digits(tmp_path)


def trained(command) -> Result:
    """Run a command in this process, which has loaded torch; it must succeed."""
    arguments = command[command.index("train") :]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done


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
@pytest.mark.usefixtures("same_sums")
def test_after_a_kill_in_the_middle_of_an_epoch_the_weights_are_the_same(
    root, repository
):
    """With mixup, two optimizers, a warm-up, an average, jumps back and a proxy."""
    options = (*EACH_STEP, *BY_SCORE, *SELECTED, *AHEAD, *AVERAGED)
    trained(train_command(root, root / "whole", *options))

    command = train_command(root, root / "killed", *options)
    killed_in_second_epoch(command, repository)
    step = read_checkpoint(root / "killed" / "last.pt")["step"]
    assert 0 < step < 4 * STEPS_PER_EPOCH
    assert not (root / "killed" / "final.pt").exists()
    again = trained(command)

    assert f"from step {step}" in again.stderr
    kept, expected = (
        read_checkpoint(root / name / "final.pt")["network"]
        for name in ("killed", "whole")
    )
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], expected[name]) for name in kept)


class Kill(BaseException):
    """Plays SIGKILL: nothing on its way catches it."""


class Foretold(Validation):
    """Has the accuracies that it was told, and is killed where there is none."""

    accuracies: Iterator[float]

    def scores(self, network, precision):
        """The next one."""
        accuracy = next(self.accuracies, None)
        if accuracy is None:
            raise Kill
        return {"accuracy": accuracy, "loss": 0.0}


def foretold(root, folder, accuracies) -> Outcome:
    """A run that keeps the best and ends after two epochs that are no better."""
    changes = ("train.checkpoint_minutes=1e-6", "train.patience=2", "train.epochs=9")
    kept = ("train.keep='best'", "train.lookahead=5")  # a jump ends each epoch
    config = read_config(root / "tiny.toml", (*changes, *kept))
    ranks = Ranks(0, 1, torch.device("cpu"))
    ready = prepare(config, root=root, ranks=ranks)
    watched = Foretold(
        ready.splits.validation, config.data, ready.objective, batch_size=20
    )
    watched.accuracies = iter(accuracies)
    return fit(
        ready.network, config, train=ready.batches, validation=watched,
        objective=ready.objective, room=Room(root / folder, ranks),
    )  # fmt: skip


@pytest.mark.usefixtures("same_sums")
def test_after_a_kill_in_a_validation_its_epoch_is_looked_at_again(root):
    """The second is the best: it has its row, is kept, and patience counts from it."""
    whole = foretold(root, "whole", [0.5, 0.9, 0.6, 0.7, 0.9])

    with pytest.raises(Kill):
        foretold(root, "killed", [0.5])
    again = foretold(root, "killed", [0.9, 0.6, 0.7, 0.9])

    assert whole.steps == again.steps == 4 * STEPS_PER_EPOCH
    rows, expected = (
        [row["validation_accuracy"] for row in read_log(root / name / "log.csv")]
        for name in ("killed", "whole")
    )
    assert rows == expected == [0.5, 0.9, 0.6, 0.7]
    kept, best = (
        read_checkpoint(root / name / "last.pt")["best_weights"]
        for name in ("killed", "whole")
    )
    assert all(torch.equal(kept[name], best[name]) for name in best)


@pytest.mark.slow
@pytest.mark.usefixtures("same_sums")
def test_two_ranks_take_the_steps_of_one(root, repository):
    """Each has half of every batch, and gradients are averaged."""
    plain = ("--set", "augment={}", "--set", "train.epochs=1")
    trained(train_command(root, root / "alone", *plain))
    _, *program = train_command(root, root / "both", *plain)
    both = run([*TORCHRUN, *program], repository)
    assert both.returncode == 0, both.stderr

    mine, ours = (
        read_checkpoint(root / name / "final.pt")["network"]
        for name in ("alone", "both")
    )
    for name in mine:
        assert torch.allclose(mine[name], ours[name], atol=2e-3), name


@pytest.fixture(scope="module")
def together(tmp_path_factory, repository):
    """Two ranks that have done one task after the other, and what they have said.

    The first of them finds a checkpoint where `apart` looks for one, and this process
    holds the folder of `locked`.
    """
    root = tmp_path_factory.mktemp("together")
    write_config(root)
    write_digits(root)
    trained(train_command(root, root / "0", "--set", "train.epochs=1"))
    (root / locked.FOLDER).mkdir()
    program = [*TORCHRUN, "-m", "tests.training.loop.together", str(root)]
    with alone_in(root / locked.FOLDER, Ranks(0, 1, torch.device("cpu"))):
        return run(program, repository)


@pytest.mark.slow
def test_two_ranks_lose_patience_together(together):
    """One that stopped by a score of its own would leave the other waiting."""
    assert together.returncode == 0, together.stderr
    steps = 4 * STEPS_PER_EPOCH
    ends = [f"disagreeing, rank {rank}: {steps} steps\n" for rank in (0, 1)]
    assert [end for end in ends if end not in together.stdout] == []


@pytest.mark.slow
def test_two_ranks_may_time_other_numbers_of_steps(together):
    """What is thrown away averages no gradients: one would wait for the other's."""
    assert together.returncode == 0, together.stderr
    # of 300 images, 40 at a time
    ends = [f"uneven, rank {rank}: 7 steps\n" for rank in (0, 1)]
    assert [end for end in ends if end not in together.stdout] == []


@pytest.mark.slow
def test_two_ranks_keep_a_time_budget_together(together):
    """One that planned by a clock of its own would leave the other waiting."""
    assert together.returncode == 0, together.stderr
    said = r"timed, rank (.): (\d+) steps, drawn by \{(.)\}"
    ends = re.findall(said, together.stdout)
    assert sorted((rank, drawn) for rank, _, drawn in ends) == [("0", "0"), ("1", "1")]
    assert len({steps for _, steps, _ in ends}) == 1


@pytest.mark.slow
def test_ranks_that_find_different_checkpoints_refuse_to_go_on(together):
    """One would begin anew, and wait for the other that goes on."""
    said = together.stdout
    assert together.returncode == 0, together.stderr
    assert "rank 0 of 2 finds that of step 15; the run folder must be" in said
    assert "rank 1 of 2 finds none; the run folder must be" in said


@pytest.mark.slow
def test_two_ranks_are_both_told_that_another_training_holds_the_folder(together):
    """Only the first asks for the lock; the other would wait for it for ever."""
    assert together.returncode == 0, together.stderr
    told = "another training (process"
    ends = [f"locked, rank {rank}: {told}" for rank in (0, 1)]
    assert [end for end in ends if end not in together.stdout] == []
