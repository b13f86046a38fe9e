"""A time budget pays for everything that a training does."""

import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from classifier.manifest import Task
from training.configs.config import read_config
from training.configs.train_sections import TrainConfig
from training.data import ArraySamples, Split
from training.data.batches import Order, ResidentBatches
from training.errors import ConfigError, DeviceFullError
from training.loop.budget import (
    Plan,
    Work,
    make_plan,
    steps_within,
    validation_seconds,
    with_loading,
)
from training.loop.start import phases, work_of
from training.loop.timing import (
    LEAST_STEPS,
    MOST_STEPS,
    WARM_STEPS,
    time_loading,
    time_steps,
)
from training.loop.validation import Validation
from training.objectives.objective import build_objective

CONFIGS = Path(__file__).parents[3] / "training/configs"
CPU = torch.device("cpu")


def test_a_budget_pays_for_steps_and_for_each_look_at_validation():
    """1.5 s a step with its part of the looks; the last one is of what is kept."""
    work = Work(steps_per_epoch=100, batch_size=10, validation_images=1500)

    assert validation_seconds(1.0, work) == 50
    assert steps_within(950, [(1.0, 1.0)], 50, work) == 600


def test_looks_in_every_tenth_epoch_cost_a_tenth():
    """What is left of the time goes into steps."""
    work = Work(100, 10, 1500, validate_every=10)

    assert steps_within(1100, [(1.0, 1.0)], 50, work) == 1000


def test_a_look_at_images_that_are_decoded_anew_pays_for_it():
    """A batch of ten takes 0.6 s to be loaded."""
    work = Work(100, 10, 1500, validation_streams=True, load_s=0.6)

    assert round(validation_seconds(1.0, work)) == 50 + 90


def test_a_look_loads_no_more_images_than_it_looks_at():
    """For a step of ten, twenty are loaded in 0.6 s, of which a proxy keeps half."""
    work = Work(100, 10, 1500, validation_streams=True, load_s=0.6, kept=0.5)

    assert round(validation_seconds(1.0, work)) == 50 + 45


def test_loading_and_computing_share_a_cpu_and_not_a_gpu():
    """There the slower of the two sets the pace."""
    assert with_loading(1.0, 3.0, CPU) == 4.0
    assert with_loading(1.0, 3.0, torch.device("cuda")) == 3.0


def test_cheaper_small_images_buy_more_steps():
    """Costs are weighted with how long each size lasts."""
    work = Work(100, 10, 0)

    assert steps_within(100, [(0.5, 0.5), (1.0, 1.5)], 0, work) == 100
    assert steps_within(100, [(0.5, 0.5), (1.0, 0.5)], 0, work) == 200
    assert steps_within(90, [(0.5, 0.5), (1.0, 1.5)], 0, work, begin=0.5) == 60


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ({}, "2.50 epochs of 100 steps in fp32"),
        (
            {"fp32": 0.0123456789, "bf16": 1 / 3},
            "2.50 epochs of 100 steps in fp32 (measured, in seconds a step: "
            "fp32 0.0123, bf16 0.333)",
        ),
    ],
)
def test_a_plan_is_told_in_words(measured, told):
    """With what decided it, where anything was measured."""
    assert Plan(250, 100, "fp32", measured).told() == told


def test_what_changes_the_cost_of_a_step_is_timed_by_itself():
    """Each phase at its beginning, where images have grown and layers are frozen."""
    timed = []

    def prepare(_network: nn.Module, _precision: str, progress: float):
        timed.append(progress)
        return lambda: None

    config = TrainConfig(minutes=1.0, batch_size=10, precision="fp32")

    plan = make_plan(nn.Linear(2, 2), prepare, config, (0.375, 1.0), Work(100, 10, 0))

    assert timed == [0.0, 0.375]
    assert set(plan.measured) == {"fp32 from 0", "fp32 from 0.375"}


def test_loading_is_part_of_what_a_step_costs():
    """Three seconds a batch: 18 of them fit into a minute, however fast a step is."""
    config = TrainConfig(minutes=1.0, batch_size=10, precision="fp32")
    work = Work(100, 10, 0, load_s=3.0)

    plan = make_plan(nn.Linear(2, 2), lambda *_: lambda: None, config, (1.0,), work)

    assert plan.steps == 18


@pytest.mark.parametrize("too_short", [{"epochs": 0.01}, {"minutes": 0.004}])
def test_what_is_too_short_for_a_step_is_told_what_would_do(too_short):
    """Of what was asked for, and not of the other; and what is advised does."""
    [(asked, value)] = too_short.items()
    work = Work(30, 10, 0, load_s=0.3)

    def plan(length: float):
        wanted = TrainConfig(batch_size=10, precision="fp32", **{asked: length})
        ready = nn.Linear(2, 2), lambda *_: lambda: None
        return make_plan(*ready, wanted, (1.0,), work, begun_s=time.perf_counter())

    with pytest.raises(ConfigError, match=f"^{value} {asked} is less than a") as caught:
        plan(value)

    advised = float(str(caught.value).rpartition("at least ")[2])
    assert "None" not in str(caught.value)
    assert "{" not in str(caught.value)
    assert value < advised < 0.2
    slower = 10 if asked == "minutes" else 1  # a moment of the machine may be
    assert plan(advised * slower).steps >= 1


def test_short_steps_are_timed_often_and_the_least_counts(machine):
    """What else the machine does makes some of them longer, and none shorter."""
    taken = []

    def step() -> None:
        taken.append(0)
        machine.work(0.001 if len(taken) == WARM_STEPS + 7 else 0.002)

    seconds = time_steps({"fp32": step}, CPU)

    assert len(taken) == WARM_STEPS + MOST_STEPS
    assert seconds["fp32"] == pytest.approx(0.001)


def test_long_steps_are_timed_no_longer_than_the_limit(machine):
    """Twenty of ten seconds in each way would be most of a budget of five minutes."""
    taken = []

    def step() -> None:
        taken.append(0)
        machine.work(10)

    seconds = time_steps({"a": step, "b": step}, CPU, until_s=30)

    assert len(taken) == 2 * LEAST_STEPS
    assert seconds == {"a": 10, "b": 10}


def test_what_is_far_from_the_best_is_timed_no_further(machine):
    """The time goes to those that are close to each other."""
    taken = {"near": 0, "best": 0, "far": 0}
    lengths = {"near": 0.0149, "best": 0.010, "far": 0.0151}

    def step(name: str) -> None:
        taken[name] += 1
        machine.work(lengths[name])

    seconds = time_steps({name: partial(step, name) for name in taken}, CPU)

    assert taken["far"] == WARM_STEPS
    assert taken["near"] == taken["best"] > WARM_STEPS
    assert seconds == pytest.approx(lengths)


@pytest.mark.parametrize("fits", [0, 1, WARM_STEPS + 1])
def test_what_the_device_has_no_room_for_is_left_out(machine, fits):
    """Where fp32 does not fit, bf16 may; with neither, a smaller batch would."""
    taken = {"fp32": 0, "bf16": 0}

    def step(name: str) -> None:
        taken[name] += 1
        if name == "fp32" and taken[name] > fits:
            raise DeviceFullError("too many images")
        machine.work(0.02)

    steps = {name: partial(step, name) for name in taken}

    assert time_steps(steps, CPU) == pytest.approx({"bf16": 0.02})
    assert taken["fp32"] == fits + 1
    with pytest.raises(DeviceFullError):
        time_steps({"fp32": steps["fp32"]}, CPU)


def test_a_training_takes_the_arithmetic_that_fits():
    """As planned: the other one is not compared."""

    def prepare(network: nn.Module, precision: str, progress: float):
        def step() -> None:
            if precision == "fp32":
                raise DeviceFullError("too many images")

        return step

    config = TrainConfig(epochs=1, batch_size=10, precision="auto")
    network = nn.Conv2d(1, 1, 3)

    plan = make_plan(network, prepare, config, (1.0,), Work(100, 10, 0))

    assert plan.precision == "bf16"
    assert not any(name.startswith("fp32") for name in plan.measured)


def test_a_fast_moment_of_the_machine_favors_nobody(machine):
    """One turn in which all was ten times as fast, for one of two only."""
    taken = {"dear": 0, "cheap": 0}
    lengths = {"dear": 0.024, "cheap": 0.02}

    def step(name: str) -> None:
        taken[name] += 1
        lucky = name == "dear" and taken[name] == WARM_STEPS + 2
        machine.work(lengths[name] / 10 if lucky else lengths[name])

    seconds = time_steps({name: partial(step, name) for name in taken}, CPU)

    assert seconds["cheap"] < seconds["dear"]


def test_planning_is_paid_for_out_of_the_budget():
    """Ten of the sixty seconds are gone: fewer batches of three seconds fit."""
    config = TrainConfig(minutes=1.0, batch_size=10, precision="fp32")
    work = Work(100, 10, 0, load_s=3.0)
    begun_s = time.perf_counter() - 10

    plan = make_plan(
        nn.Linear(2, 2),
        lambda *_: lambda: None,
        config,
        (1.0,),
        work,
        begun_s=begun_s,
    )

    assert plan.steps == 15


def test_loading_is_timed_on_batches_of_the_training():
    """An epoch that is shorter than the sample is loaded once."""
    pixels = torch.zeros(6, 2, 2, 1, dtype=torch.uint8).numpy()
    order = Order(6, 2, seed=0)
    batches = ResidentBatches(pixels, pixels[:, 0, 0, 0], order, CPU)

    assert 0 < time_loading(batches, minutes=10) < 1


def test_each_rank_pays_for_all_of_validation():
    """It is timed on its share of a batch, and looks at every image."""
    config = read_config(CONFIGS / "mnist.toml", ("train.batch_size=80",))
    pixels = torch.zeros(6, 28, 28, 1, dtype=torch.uint8).numpy()
    labels = torch.arange(6).numpy()
    batches = ResidentBatches(pixels, labels, Order(6, 2, seed=0), CPU)
    split = Split("validation", ArraySamples("x", pixels, labels), labels)
    objective = build_objective(Task.MULTICLASS, labels=6)
    watched = Validation(split, config.data, objective, batch_size=80)

    alone, four = (work_of(config, batches, watched, world=w) for w in (1, 4))

    assert (alone.batch_size, four.batch_size) == (80, 20)
    assert validation_seconds(1.0, four) == 4 * validation_seconds(1.0, alone)


def test_a_step_costs_less_where_layers_freeze_or_images_are_small():
    """The phases of a config, from its optimizers and its sizes."""
    path = CONFIGS / "cifar10_94.toml"

    assert phases(read_config(path)) == (0.375, 1.0)
    grows = read_config(path, ("augment.sizes=[[0.5, 24], [1.0, 32]]",))
    assert phases(grows) == (0.375, 0.5, 1.0)
