"""A plan that was wrong is corrected by what steps really take."""

import io
from dataclasses import replace

import pytest
import torch

from tests.training.loop.runs import write_config, write_digits
from training.configs.config import read_config
from training.loop.budget import Plan, Work
from training.loop.checkpoint import read_checkpoint, write_checkpoint
from training.loop.distributed import Ranks
from training.loop.loop import Outcome, Room, fit
from training.loop.pace import MARKS, Pace, stretched
from training.loop.runs import prepare

RANKS = Ranks(0, 1, torch.device("cpu"))
WORK = Work(steps_per_epoch=100, batch_size=10, validation_images=0)
PLAN = Plan(1000, 100, "fp32", {}, costs=((0.5, 1.0), (1.0, 2.0)))


def test_the_rest_is_planned_by_the_pace_so_far():
    """Twice as dear as planned, and 1200 s left: half of the steps from there."""
    plan = stretched(PLAN, 200, 2.0, 0.0, WORK, left_s=1200)

    # from 0.2 on: (0.3 x 2 s + 0.5 x 4 s) / 0.8 = 3.25 s a step
    assert plan.steps == 200 + 369
    assert plan.progress(200) == PLAN.progress(200) == 0.2
    assert plan.progress(plan.steps) == 1.0


def test_progress_never_jumps_nor_turns_back():
    """However often the plan changes, each step goes on from the one before."""
    plan, step, seen = PLAN, 0, [0.0]
    for at, left_s in ((30, 200.0), (60, 9000.0), (500, 300.0)):
        while step < at:
            step += 1
            seen.append(plan.progress(step))
        plan = stretched(plan, step, 1.0, 0.0, WORK, left_s=left_s)
        assert plan.progress(step) == pytest.approx(seen[-1])

    assert seen == sorted(seen)


def test_looks_at_validation_are_paid_for_first():
    """One a hundred steps and one at the end, of 50 s each."""
    plan = stretched(replace(PLAN, costs=((1.0, 1.0),)), 500, 1.0, 50, WORK, left_s=350)

    assert plan.steps == 500 + 200


def test_a_budget_that_is_spent_ends_with_the_next_step():
    """It is not exceeded further, and a training ends where its schedule does."""
    plan = stretched(PLAN, 500, 1.0, 0.0, WORK, left_s=-10)

    assert plan.steps == 501


def test_steps_and_looks_are_told_apart(machine):
    """Steps of 2 s instead of 1, and looks of 30 s, after two epochs of a hundred.

    What comes before a process is warm says nothing of either.
    """
    plan = replace(PLAN, costs=((1.0, 1.0),), look_s=5.0)
    pace = Pace(WORK)
    machine.work(500.0)
    pace.look(500.0)
    for done in range(1, 201):
        machine.work(2.0)
        pace.step(plan, done)
        if done % 100 == 0:
            machine.work(30.0)
            pace.look(30.0)

    corrected = pace.corrected(plan, 200, left_s=1180.0)

    # the last look, and 2 s a step with a hundredth of a look
    assert corrected.steps == 200 + 1150 / 2.3


@pytest.mark.parametrize(
    ("plan", "times"),
    [(PLAN, len(MARKS)), (replace(PLAN, costs=()), 0), (replace(PLAN, steps=4), 1)],
    ids=["budget", "epochs", "few-steps"],
)
def test_a_plan_is_looked_at_where_it_passes_a_mark(plan, times):
    """One of epochs has no costs and is never corrected, and none after its end."""
    pace, due = Pace(WORK), 0
    for done in range(1, plan.steps + 1):
        pace.step(plan, done)
        due += pace.is_due(plan, done)

    assert due == times


@pytest.fixture
def root(tmp_path):
    """Digits and a config."""
    write_config(tmp_path)
    return write_digits(tmp_path)


def fitted(root, folder, *changes) -> tuple[Outcome, str]:
    """A run on the digits, and what it said."""
    config = read_config(root / "tiny.toml", changes)
    ready = prepare(config, root=root, ranks=RANKS)
    said = io.StringIO()
    outcome = fit(
        ready.network, config, train=ready.batches, validation=None,
        objective=ready.objective, room=Room(root / folder, RANKS, said),
    )  # fmt: skip
    return outcome, said.getvalue()


def planned_anew(root, folder, *, seconds: float, **changes) -> None:
    """Changes the checkpoint that a run left at its first epoch: so many were used."""
    path = root / folder / "last.pt"
    saved = read_checkpoint(path)
    saved["plan"] |= {"from_step": 0, "from_progress": 0.0} | changes
    saved["seconds"] = seconds
    write_checkpoint(path, saved)


def begun(root, folder, monkeypatch, *changes) -> None:
    """A run that was killed after its first epoch."""

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.loop.pace.Pace.look", kill)
        with pytest.raises(KeyboardInterrupt):
            fitted(root, folder, *changes)


@pytest.mark.usefixtures("same_sums")
def test_a_budget_that_was_measured_on_a_busy_machine_is_used_all_the_same(
    root, monkeypatch
):
    """Steps that seemed to take a second each leave room for many more."""
    begun(root, "run", monkeypatch, "train.minutes=0.5")
    planned_anew(root, "run", seconds=25.0, steps=20, costs=((1.0, 1.0),))

    outcome, said = fitted(root, "run", "train.minutes=0.5")

    assert "by the pace to here" in said
    assert outcome.plan.steps == outcome.steps > 20
    assert outcome.plan.from_step == 18


@pytest.mark.usefixtures("same_sums")
def test_a_run_of_minutes_goes_on_with_its_corrected_plan(root, monkeypatch):
    """And with the same weights, to the bit, as long as no mark corrects it again."""
    minutes = "train.minutes=0.5"
    begun(root, "first", monkeypatch, minutes)
    corrected = {"steps": 30, "from_step": 10, "from_progress": 0.91, "costs": ()}
    planned_anew(root, "first", seconds=3.0, **corrected)
    (root / "second").mkdir()
    saved = (root / "first" / "last.pt").read_bytes()
    (root / "second" / "last.pt").write_bytes(saved)

    for folder in ("first", "second"):
        outcome, _ = fitted(root, folder, minutes)
        assert (outcome.steps, outcome.plan.from_progress) == (30, 0.91)

    one, other = (
        read_checkpoint(root / folder / "last.pt") for folder in ("first", "second")
    )
    assert one["plan"] == other["plan"]
    for name, value in one["network"].items():
        assert torch.equal(value, other["network"][name])
