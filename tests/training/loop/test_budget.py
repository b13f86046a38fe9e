"""A time budget pays for everything that a training does."""

from pathlib import Path

from torch import nn

from training.configs.config import read_config
from training.configs.sections import TrainConfig
from training.loop.budget import Work, make_plan, steps_within
from training.loop.start import phases

CONFIGS = Path(__file__).parents[3] / "training/configs"


def test_a_budget_pays_for_steps_and_validation_and_keeps_a_margin():
    """1000 s: 80 s margin, then 1.5 s a step with its part of the validation."""
    work = Work(steps_per_epoch=100, batch_size=10, validation_images=1500)

    assert steps_within(1000, [(1.0, 1.0)], work) == 613


def test_cheaper_small_images_buy_more_steps():
    """Costs are weighted with how long each size lasts."""
    work = Work(100, 10, 0)

    assert steps_within(100, [(0.5, 0.5), (1.0, 1.5)], work) == 92
    assert steps_within(100, [(0.5, 0.5), (1.0, 0.5)], work) == 184


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


def test_a_step_costs_less_where_layers_freeze_or_images_are_small():
    """The phases of a config, from its optimizers and its sizes."""
    path = CONFIGS / "cifar10_94.toml"

    assert phases(read_config(path)) == (0.375, 1.0)
    grows = read_config(path, ("augment.sizes=[[0.5, 24], [1.0, 32]]",))
    assert phases(grows) == (0.375, 0.5, 1.0)
